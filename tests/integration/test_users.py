"""Two people on one cluster whose ranks run as who submitted them: what one of them can do to the other."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.access.roles import Role
from jobs.wire.introductions import Introduction
from tests.accounts import accounts, needs_root
from tests.integration.conftest import Cluster, running, until

pytestmark = needs_root

SYSTEM = "/usr/bin/python3"
"""The interpreter of these jobs: that of the tests may lie in a folder of root's alone."""

INTRUDER = r"""
import glob, json, os, signal, socket
told = {"uid": os.getuid(), "groups": os.getgroups(), "user": os.environ["USER"], "home": os.environ["HOME"]}

def tried(name, what):
    try:
        told[name] = repr(what())[:200]
    except OSError as error:
        told[name] = error.__class__.__name__

def dial(path):
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect(path)
        except OSError as error:
            if error.errno == 91:  # EPROTOTYPE: it is there, and of another kind
                return "reached"
            raise
        return "reached"

folder, pid = os.environ["THEIRS"], int(os.environ["PID"])
for name in ("", "work", "own"):
    tried("list:" + name, lambda: os.listdir(os.path.join(folder, name)))
for name in ("work/private", "rank-0.log", "launch.json", "state.json", "own/metrics-0.jsonl"):
    tried("read:" + name, lambda: open(os.path.join(folder, name)).read())
tried("write", lambda: open(os.path.join(folder, "work", "mine"), "w"))
tried("environ", lambda: open(f"/proc/{pid}/environ").read())
tried("cwd", lambda: os.readlink(f"/proc/{pid}/cwd"))
tried("kill", lambda: os.kill(pid, signal.SIGTERM))
tried("kill-guard", lambda: os.kill(os.getppid(), signal.SIGKILL))
tried("forge", lambda: open("../exit.json", "w"))
tried("records", lambda: open("../launch.json").read())
home = os.environ["CLUSTER"]
for name in ("api.sock", "gateway.sock", "agent.sock"):
    for path in os.environ["SOCKETS"].split(":"):
        if path.endswith(name):
            tried("dial:" + name, lambda: dial(path))
seen = []
for root in (home, os.environ["NODE"], "/tmp/ray", "/proc"):
    for base, folders, files in os.walk(root):
        if root == "/proc":
            folders[:] = [one for one in folders if base == "/proc" and one.isdigit()]
            files = [one for one in files if one == "environ" and base != "/proc/self"]
        for file in files:
            path = os.path.join(base, file)
            try:
                with open(path, "rb") as one:
                    if os.environ["TOKEN"][:8].encode() in one.read(1 << 20) and str(os.getpid()) not in path:
                        seen.append(path)
            except OSError:
                pass
told["ray"] = [name for name in os.environ if name.startswith("RAY_")]
told["token"] = [path for path in seen if "/proc/self" not in path]
print("TOLD " + json.dumps(told), flush=True)
"""

PLANTER = r"""
import os
os.makedirs("out/inner")
open("out/good", "w").write("kept")
os.symlink("/etc/shadow", "out/leak")
os.symlink(os.environ["SECRET_FILE"], "out/inner/leak")
os.symlink("/root", "out/folder")
open("../own/outbox.json", "w").write("x")
"""


class Person(http.client.HTTPConnection):
    """Somebody at the controller, as the gateway introduces them."""

    def __init__(self, path: Path, user: str) -> None:
        super().__init__("quarterdeck")
        self._path, self._user = path, user

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))
        self.sock.sendall(Introduction(self._user, Role.OPERATOR).line())

    def submit(self, command: list[str], **spec: Any) -> tuple[int, dict[str, Any]]:
        """Status and answer."""
        body = {"spec": {"command": command, **spec}}
        self.request("POST", "/v1/jobs", json.dumps(body), {"Content-Type": "application/json"})
        answer = self.getresponse()
        document = json.loads(answer.read())
        self.close()
        return answer.status, document


@dataclass(frozen=True)
class Shared:
    """A cluster of two people, and its node's folder."""

    cluster: Cluster
    node: Path
    ada: str
    bob: str

    def submit(self, user: str, command: list[str], **spec: Any) -> str:
        status, answer = Person(self.cluster.where.gateway_socket, user).submit(command, **spec)
        assert status == 201, answer
        return str(answer["id"])

    def view(self, job: str) -> dict[str, Any]:
        view: dict[str, Any] = self.cluster.qd("job", job, "--json").json
        return view

    def ended(self, job: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            view = self.view(job)
            return view if view["state"] in ("SUCCEEDED", "FAILED", "CANCELLED") else None

        found: dict[str, Any] = until(look)
        return found

    def log(self, job: str) -> str:
        return "\n".join(line for _, line in self.cluster.lines(job))

    def folder(self, job: str) -> Path:
        (found,) = (self.node / "attempts").glob(f"*-{job}-*")
        return found


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    node = Path(tempfile.mkdtemp(prefix="qdn-"))
    node.chmod(0o755)
    try:
        with (
            accounts("a", "b") as (ada, bob),
            running(QD_RANKS_AS="submitter", QD_NODE_STATE=str(node)) as cluster,
        ):
            yield Shared(cluster, node, ada, bob)
    finally:
        shutil.rmtree(node)


def test_one_persons_ranks_reach_nothing_of_anothers(shared: Shared) -> None:
    victim = shared.submit(
        shared.ada, ["sh", "-c", "echo gold > private; id; exec sleep 600"], env={"DIARY": "dear"}
    )
    until(lambda: "uid=" in shared.log(victim) or shared.view(victim)["state"] == "FAILED")
    assert shared.view(victim)["state"] == "RUNNING", shared.view(victim)["reason"]
    uid = pwd.getpwnam(shared.ada).pw_uid
    assert f"uid={uid}({shared.ada})" in shared.log(victim)
    folder = shared.folder(victim)
    state = json.loads((folder / "state.json").read_text())
    pid = state["ranks"][0]["pid"]
    assert Path(f"/proc/{pid}").stat().st_uid == uid
    token = shared.cluster.where.ray_token.read_text().strip()
    sockets = [shared.cluster.where.socket, shared.cluster.where.gateway_socket]
    sockets.append(shared.node / "agent.sock")
    intruder = shared.submit(
        shared.bob,
        [SYSTEM, "-c", INTRUDER],
        env={
            "THEIRS": str(folder),
            "PID": str(pid),
            "CLUSTER": shared.cluster.environ["QD_HOME"],
            "NODE": str(shared.node),
            "TOKEN": token[:8],
            "SOCKETS": ":".join(map(str, sockets)),
        },
    )
    assert shared.ended(intruder)["state"] == "SUCCEEDED", shared.log(intruder)
    (line,) = [line for line in shared.log(intruder).splitlines() if line.startswith("TOLD ")]
    told = json.loads(line.removeprefix("TOLD "))
    assert told.pop("uid") == pwd.getpwnam(shared.bob).pw_uid
    assert told.pop("groups") == [pwd.getpwnam(shared.bob).pw_gid]
    assert told.pop("user") == shared.bob
    assert told.pop("home").startswith(str(shared.node))  # he has no home of his own
    assert told.pop("token") == [] == told.pop("ray")
    assert set(told.values()) == {"PermissionError"}, told
    assert Path(f"/proc/{pid}/environ").read_bytes().count(b"DIARY=dear") == 1  # it lives
    assert shared.cluster.qd("cancel", victim).code == 0
    assert shared.ended(victim)["state"] == "CANCELLED"


def test_what_runs_beside_a_rank_is_its_users_too(shared: Shared) -> None:
    job = shared.submit(shared.ada, ["sh", "-c", "echo up; exec sleep 600"])
    until(lambda: "up" in shared.log(job) or shared.view(job)["state"] == "FAILED")
    name = pwd.getpwnam(shared.ada)
    done = shared.cluster.qd("exec", job, "--", "sh", "-c", "id -u; id -G; touch made; pwd")
    assert done.out.split() == [str(name.pw_uid), str(name.pw_gid), *done.out.split()[2:]], done
    assert (shared.folder(job) / "work" / "made").stat().st_uid == name.pw_uid
    assert shared.cluster.qd("cancel", job).code == 0


def test_links_among_outputs_give_nobody_elses_files(shared: Shared, tmp_path: Path) -> None:
    secret = shared.node / "secret"
    secret.write_text("the combination is 1234")
    secret.chmod(0o600)
    job = shared.submit(
        shared.bob,
        ["python", "-c", PLANTER],
        python=SYSTEM,
        env={"SECRET_FILE": str(secret)},
        outputs={"all": "out"},
    )
    view = shared.ended(job)
    assert view["state"] == "SUCCEEDED", shared.log(job)
    (artifact,) = view["artifacts"]
    assert (artifact["files"], artifact["size"]) == (4, len("kept"))  # the links as links
    refused = shared.cluster.qd("cat", job, "out/inner/leak")
    assert refused.code != 0 and "combination" not in refused.out
    kept = b"".join(
        Path(base, name).read_bytes()
        for base, _, names in os.walk(shared.cluster.where.state / "blobs")
        for name in names
    )
    assert b"kept" in kept
    assert b"combination" not in kept and b"root:" not in kept


def test_who_has_no_account_and_what_needs_the_nodes_own_is_refused(shared: Shared) -> None:
    gateway = Person(shared.cluster.where.gateway_socket, "nobody-here")
    status, answer = gateway.submit(["true"])
    assert (status, "no account" in answer["error"]["message"]) == (403, True), answer
    refused = shared.cluster.qd("submit", "--no-workdir", "--", "true")
    assert (refused.code, "never run as root" in refused.err) == (4, True), refused.err
    person = Person(shared.cluster.where.gateway_socket, shared.ada)
    status, answer = person.submit(["true"], kind="ray")
    assert (status, "kind: ray" in answer["error"]["message"]) == (403, True), answer
