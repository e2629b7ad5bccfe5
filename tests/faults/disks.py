"""`python -m tests.faults.disks LIBRARY FOLDER SCENARIO`, with LIBRARY preloaded: plays a scenario while the
disk below FOLDER refuses one call, or all from one on, and then again when it takes everything; for each
call and each way to refuse it. Prints how many calls there were, and raises where something stays wrong."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import hashlib
import io
import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.controller.stores.blobs import FolderBlobs
from agents.controller.stores.logstore import LogStore
from agents.controller.stores.secretstore import SecretStore
from agents.node.attempts import Attempt
from agents.node.guard import records
from agents.node.guard.closed import ClosedJobs
from agents.node.guard.launch import write_lease
from agents.node.holdings import Holdings
from agents.node.staging import checkpoints, room
from agents.node.staging.blobcache import BlobCache
from agents.node.staging.datasets import DataCache
from agents.node.staging.envcache import EnvCache
from agents.node.staging.ledger import Ledger
from agents.node.staging.preflight import Condition
from agents.node.staging.steps import Missing, Stager
from agents.supervisor import head
from agents.supervisor import record as cluster_record
from jobs.base.errors import StorageFull
from jobs.snapshots.manifest import FileEntry, Manifest
from jobs.snapshots.pack import write_pack
from jobs.wire.messages import LaunchPlan, StopRequest

_BY_ITSELF = (StorageFull, OSError)
"""What callers do again by themselves."""


class Disk:
    """The disk below `folder`, which refuses what it is told to refuse."""

    def __init__(self, library: str, folder: Path) -> None:
        self._library, self.folder = ctypes.CDLL(library), folder

    def refuse(self, number: int, error: int, *, lasting: bool) -> None:
        """The `number`-th call from now on, or all from it on."""
        self._library.fault_arm(str(self.folder).encode(), number, error, int(lasting))

    def recover(self) -> int:
        """Take everything again; how many calls there were since `refuse`."""
        return int(self._library.fault_disarm())


Scenario = Callable[[Path], None]
"""Does a thing below a folder. It may be left at any point by an error of `_BY_ITSELF`; done again it
comes to the same, and says so by assertions."""


def play(disk: Disk, scenario: Scenario) -> int:
    """How many calls the scenario makes that change something."""
    made = 0
    for error, lasting in itertools.product((errno.ENOSPC, errno.EIO, errno.EROFS), (False, True)):
        for number in itertools.count(1):
            place = disk.folder / f"{error}-{lasting}-{number}"
            place.mkdir(parents=True)
            disk.refuse(number, error, lasting=lasting)
            try:
                scenario(place)
            except _BY_ITSELF as refusal:
                told: str = str(refusal)
            else:
                told = ""
            finally:
                calls = disk.recover()
            try:
                scenario(place)
            except Exception as again:
                word = f"{errno.errorcode[error]} at call {number}{' and after' * lasting}: {told}"
                raise AssertionError(f"{word}\nthen, with room again: {again!r}") from again
            shutil.rmtree(place)
            if calls < number:
                made = max(made, calls)
                break
    return made


_CODE = b"print('hello')\n" * 40
_ENTRY = FileEntry("src/main.py", 0o755, len(_CODE), hashlib.sha256(_CODE).hexdigest())
_MANIFEST = Manifest.of([_ENTRY, FileEntry("link", 0o644, 0, "", "src/main.py")])


def _pack() -> io.BytesIO:
    pack, manifest = io.BytesIO(), _MANIFEST.to_bytes()
    write_pack(pack, [(hashlib.sha256(data).hexdigest(), data) for data in (manifest, _CODE)])
    pack.seek(0)
    return pack


def _plan(key: str, epoch: int) -> LaunchPlan:
    plan: Any = {"key": key, "job": "j1", "attempt": 1, "epoch": epoch, "kind": "gang", "gpus": 1}
    plan |= {
        "node_rank": 0,
        "nnodes": 1,
        "procs": 1,
        "first_rank": 0,
        "python": None,
        "memory": None,
    }
    plan |= {"snapshot": _MANIFEST.digest, "checkpoint": _MANIFEST.digest, "requirements": None}
    found: LaunchPlan = plan
    return found


def attempt(place: Path) -> None:
    """An attempt is admitted, staged, refused and forgotten, and an agent finds on disk what there is."""
    ledger = Ledger(["GPU-1"])
    holdings = Holdings(place, ledger, 0.0)
    holdings.adopt(0.0, 0.0)
    plan, blobs = _plan("c-j1.1", 1), BlobCache(place / "blobs")
    blobs.put_pack(_pack())
    kept = place / "checkpoints" / "c-j1"
    if holdings._closed.epoch("c-j1") < 1:
        held = holdings.admit(plan)
        if held.standing.state == "staged":
            envs, here = EnvCache(place / "envs"), Condition(None, 1 << 40)
            data = DataCache(place / "data", blobs)
            stager = Stager(
                blobs, envs, ledger, {}, lambda: here, lambda key: None, lambda key: kept, data
            )
            staging = stager.stage(
                plan, held.folder, lost=(), ports=(), progress=lambda words: None
            )
            staged = asyncio.run(staging)
            assert not isinstance(staged, Missing)
            held.remember(staged)
            write_lease(held.folder, 5.0)
            write_lease(held.folder, 7.0)
            assert float((held.folder / records.LEASE).read_text()) == 7.0
            assert (held.folder / "work" / "link").read_bytes() == _CODE
            held.refuse("it was cancelled")
            held.refresh(0.0, 0.0)
        assert held.standing.outcome == "refused"
        holdings.settle(held)
    holdings.forget([held.key for held in holdings], 100.0)  # the controller asks until it is done
    assert (kept / "src" / "main.py").read_bytes() == _CODE, "it would begin without its checkpoint"
    assert not list(holdings)
    assert ledger.allot("another", 1) == ["GPU-1"]
    assert ClosedJobs(place / "closed", 0.0).epoch("c-j1") == 1
    assert [path.name for path in (place / "attempts").iterdir()] == []


def same_agent(place: Path) -> None:
    """As `attempt`, but the agent that met with the full disk lives on: what it holds in memory has to fit
    what is on disk."""
    ledger = Ledger(["GPU-1"])
    holdings = _agents.get(place) or _agents.setdefault(place, Holdings(place, ledger, 0.0))
    for number in (1, 2):
        stop = StopRequest(key=f"c-j{number}.1", epoch=1, grace=0.0, reason="cancelled")
        if holdings._closed.epoch(f"c-j{number}") < 1:
            made = holdings.admit(_plan(stop["key"], 1)) if number == 1 else None
            held = holdings.stopped(stop)
            assert made is None or made is held
            if held.standing.state == "staged":
                held.refuse("it was cancelled")
                held.refresh(0.0, 0.0)
            assert held.standing.outcome == "refused", held.standing
        holdings.forget([held.key for held in holdings], 100.0)
        assert holdings.get(stop["key"]) is None
    closed = ClosedJobs(place / "closed", 0.0)
    assert (closed.epoch("c-j1"), closed.epoch("c-j2")) == (1, 1)
    left = [path.name for path in (place / "attempts").iterdir()]
    assert left == [], left


_agents: dict[Path, Holdings] = {}


def blobs(place: Path) -> None:
    """A blob is stored by the controller."""
    store = FolderBlobs(place / "blobs")
    store.put(_ENTRY.sha256, io.BytesIO(_CODE))
    assert store.read(_ENTRY.sha256) == _CODE
    assert store.missing([_ENTRY.sha256]) == []
    assert [path.name for path in (place / "blobs" / "sha256").iterdir()] == [_ENTRY.sha256[:2]]


def logs(place: Path) -> None:
    """Chunks of a log come in, from where the log ends, and are made durable."""
    store, data = LogStore(place / "logs"), b"one\ntwo\nthree\n"
    try:
        while (size := store.size(1, 1, 0)) < len(data):
            store.append(1, 1, 0, size, data[size : size + 5], [(size, 10.0 + size)])
        store.sync(1, 1, 0)
        assert store.read(1, 1, 0, 0, 100) == data
        times = [line.at for line in store.lines(1, 1, 0, 0, final=True)]
        assert times == sorted(times), times
    finally:
        store.close()


def small_files(place: Path) -> None:
    """What is written whole: a record, a cluster's record, its token, secrets."""
    path = place / "record.json"
    before = records.read_json(str(path))
    try:
        records.write_file(str(path), json.dumps({"n": 1}).encode(), durable=True)
    except OSError:
        assert records.read_json(str(path)) in (before, {"n": 1})
        raise
    head.make_token(place / "token")
    assert len((place / "token").read_text()) == 64
    written: Any = {"version": cluster_record.VERSION, "node": "n1"}
    cluster_record.write(place / "cluster.json", written)
    assert cluster_record.read(place / "cluster.json") is not None
    secrets = SecretStore(place / "secrets")
    secrets.save(1, {"TOKEN": "x"})
    assert secrets.load(1) == {"TOKEN": "x"}
    assert not list(place.rglob("*.tmp")), "a half-written file stayed"


def tombstone(place: Path) -> None:
    """An attempt is stopped that never came."""
    folder = place / "c-j1.1"
    if not folder.exists():
        Attempt.tombstone(folder, "c-j1.1", 1, "cancelled")
    found = Attempt.load(folder)
    assert found is not None
    found.refresh(0.0, 0.0)
    assert found.standing.outcome == "refused"


def checkpoint(place: Path) -> None:
    """A job's checkpoint folder begins as a copy."""
    cache = BlobCache(place / "blobs")
    cache.put_pack(_pack())
    checkpoints.begin(place / "kept" / "c-j1", _MANIFEST, cache.path)
    assert (place / "kept" / "c-j1" / "src" / "main.py").read_bytes() == _CODE


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (attempt, same_agent, blobs, logs, small_files, tombstone, checkpoint)
}


def main() -> int:
    library, folder, name = sys.argv[1:]
    room.RESERVE = 0
    print(play(Disk(library, Path(folder)), SCENARIOS[name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
