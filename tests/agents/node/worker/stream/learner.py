"""A script that learns from a stream, and can be killed before its n-th change of the checkpoint folder.

Reads a folder and n from each line of its input, does that in a process of its own, and says how it ended.
Its model is all that it was trained on, so that a record which is lost or trained twice shows.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import quarterdeck_stream

CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.chmod")


def learn(folder: str, kill_at: int) -> None:
    changes = 0

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in CHANGES or "checkpoints" not in str(args[0]):
            return
        if event == "open" and "w" not in str(args[1]) and not args[2] & os.O_WRONLY:
            return
        changes += 1
        if changes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.chdir(folder)
    trained: list[int] = []

    def save(place: Path) -> None:
        (place / "model.json").write_text(json.dumps(trained))

    sys.addaudithook(count)
    stream = quarterdeck_stream.open(save)
    if stream.checkpoint:
        trained = json.loads((stream.checkpoint / "model.json").read_text())
    for record in stream:
        stream.score(record["guess"], record["truth"])
        trained.append(record["id"])
    stream.close()
    Path("changes").write_text(str(changes))


def main() -> None:
    os.fsync = lambda fd: None  # a kill loses nothing that was written
    for line in sys.stdin:
        folder, kill_at = line.rsplit(" ", 1)
        pid = os.fork()
        if pid == 0:
            try:
                learn(folder, int(kill_at))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


main()
