"""A stand-in for podman and crun: the arguments, the environment and the processes are as with the real
one, and there is no container around the program."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from agents.node.staging import images

DIGEST = "sha256:" + "d" * 64
ID = "1" * 64

_SCRIPT = """#!{python} -IS
import json, os, signal, sys
state, words = {state!r}, [word for word in sys.argv[1:]]
with open(state + "/calls", "a") as calls:
    calls.write(json.dumps([words, dict(os.environ)]) + "\\n")
if words == ["--version"]:
    sys.exit(print("podman version 9.9.9"))
while words and words[0].startswith("--"):
    words.pop(0)
verb = words.pop(0)
there = open(state + "/images").read().split()
if verb == "image":
    if words[1] not in there:
        sys.exit("Error: inspecting object: " + words[1] + ": image not known")
    env = ["PATH=/image/bin:/usr/bin:/bin", "PYTHONPATH=/image/lib", "FROM_IMAGE=1", "NOT_WANTED=1"]
    print(json.dumps([{{"Id": {id!r}, "Digest": {digest!r}, "Config": {{"Env": env}}}}]))
elif verb == "images":
    print("\\n".join(there))
elif verb == "pull":
    if "nosuch" in words[-1]:
        sys.exit("Error: initializing source docker://nosuch: manifest unknown")
    open(state + "/images", "a").write(words[-1] + "\\n")
elif verb == "run":
    options = {{}}
    env = {{}}
    while words[0].startswith("--"):
        name, _, value = words.pop(0)[2:].partition("=")
        options.setdefault(name, []).append(value)
    for item in options["env"]:
        name, equals, value = item.partition("=")
        env[name] = value if equals else os.environ[name]
    assert words.pop(0) == {id!r}, words
    read, write = os.pipe()
    if os.fork() == 0:  # conmon, whose parent ends at once
        if os.fork():
            os._exit(0)
        os.setsid()
        program = os.fork()
        if program == 0:
            os.setsid()
            with open(options["pidfile"][0], "w") as file:
                file.write(str(os.getpid()))
            os.chdir(options["workdir"][0])
            os.execvpe(words[0], words, env)
        code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        os.write(write, str(128 - code if code < 0 else code).encode())
        os._exit(0)
    os.wait()
    os.close(write)
    sys.exit(int(os.read(read, 9) or 137))
"""


class StandIn:
    """Where its calls are recorded, and which images it has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        script = _SCRIPT.format(python=sys.executable, state=str(folder), id=ID, digest=DIGEST)
        for name, text in (("podman", script), ("crun", "#!/bin/sh\n")):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        self.has("local/image:1")

    def has(self, *images: str) -> None:
        (self.folder / "images").write_text("".join(f"{image}\n" for image in images))

    def calls(self, verb: str) -> list[list[str]]:
        """The words of each call of a command."""
        return [words for words, _ in self._calls() if verb in words]

    def environment(self) -> dict[str, str]:
        """That of the newest `run`."""
        return [env for words, env in self._calls() if "run" in words][-1]

    def _calls(self) -> list[tuple[list[str], dict[str, str]]]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [(words, env) for words, env in map(json.loads, lines)]


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Have it lead PATH."""
    made = StandIn(folder)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(images, "_GROUPS", folder)
    return made
