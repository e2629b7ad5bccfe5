"""What the jobs of the soak run: ranks that keep a diary of their own, which nobody else can write.

    python rank.py DIARY TICKS [--deaf] [--fail] [--large MIB | --moved]

Each tick prints `tick N`, logs a point at step N and moves the checkpoint, up to TICKS; then it prints
`end N`. A restart goes on from the checkpoint. `--deaf` ignores SIGTERM, `--fail` ends with exit code 3
after a few ticks. With a parameter `x`, as in a trial, the point has a loss too. `--large` writes a file of
so many MiB into the checkpoint folder first, named by its digest; one that is there is checked, and with
`--moved` it has to be there.

The diary is a file for each process in DIARY, `j1.2.r0.PID`, one fact a line with the boot clock: what
was written is noted only after it was. Locks, which the kernel takes back at the moment a process ends,
show two attempts of a job, or two jobs on a GPU, that live at one time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import struct
import sys
import time
from pathlib import Path

import quarterdeck

TICK = 0.1
"""Seconds between two ticks."""
LIFE = 8
"""Ticks after which `--fail` fails."""
RANKS = 64
"""Bytes of a job's lock file for each attempt, one for each rank."""
_FLOCK = "hhqqi"  # struct flock on 64-bit Linux: type, whence, start, length, pid


class Diary:
    """Facts of this process, appended one by one: they outlive SIGKILL."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        name = f"{os.environ['QD_RUN']}.r{quarterdeck.rank}.{os.getpid()}"
        self._file = os.open(folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, *words: object) -> None:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.write(self._file, " ".join(map(str, [f"{now:.3f}", *words])).encode() + b"\n")

    def be_alone(self) -> None:
        """Note whoever should not be alive beside this rank."""
        job, _, attempt = os.environ["QD_RUN"].rpartition(".")
        place = int(attempt) * RANKS
        self._claim(f"{job}.lock", place + quarterdeck.rank, place, place + RANKS)
        for gpu in filter(None, os.environ.get("QD_SIMULATED_GPUS", "").split(",")):
            self._claim(f"{gpu}.lock", 0, 1, 1)

    def _claim(self, name: str, own: int, first: int, end: int) -> None:
        """Lock the byte `own`; nobody may hold it, nor any outside of `first` to `end`."""
        file = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)  # held until we end
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, own)
        except OSError:
            self.note("double", name, self._holder(file, own, 1))
        for start, length in ((0, first), (end, 0)):  # a length of 0 means: and all after it
            if (start or length) and (pid := self._holder(file, start, length)):
                self.note("double", name, pid)

    @staticmethod
    def _holder(file: int, start: int, length: int) -> int:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        answer = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, question))
        return 0 if answer[0] == fcntl.F_UNLCK else int(answer[4])


def write_large(mib: int) -> str:
    """A file in the checkpoint folder that is named by its digest; its name. No two MiB of it are equal."""
    block, digest = hashlib.sha512(b"large").digest() * (1 << 14), hashlib.sha256()
    with quarterdeck.atomic_write(quarterdeck.checkpoint_dir / "large.bin") as file:
        for number in range(mib):
            piece = number.to_bytes(8, "big") + block[8:]
            digest.update(piece)
            file.write(piece)
    name = f"large-{digest.hexdigest()}.bin"
    (quarterdeck.checkpoint_dir / "large.bin").rename(quarterdeck.checkpoint_dir / name)
    return name


def check_large(diary: Diary) -> bool:
    """Note those that are there, whole or torn; whether there is any."""
    found = sorted(quarterdeck.checkpoint_dir.glob("large-*.bin"))
    for path in found:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        whole = path.name == f"large-{digest.hexdigest()}.bin"
        diary.note("large" if whole else "torn", path.name)
    return bool(found)


def main() -> None:
    if "--deaf" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    diary, ticks = Diary(Path(sys.argv[1])), int(sys.argv[2])
    checkpoint = quarterdeck.checkpoint_dir / f"rank-{quarterdeck.rank}"
    number = int(checkpoint.read_text()) if checkpoint.exists() else 0
    diary.note("start", number)
    diary.be_alone()
    print(f"start {number}", flush=True)
    if "--large" in sys.argv and not check_large(diary):
        diary.note("large", write_large(int(sys.argv[sys.argv.index("--large") + 1])))
    if "--moved" in sys.argv and not check_large(diary):
        diary.note("torn", "what should have been there")
    x, last = quarterdeck.params.get("x"), number + LIFE
    while number < ticks:
        number += 1
        print(f"tick {number}", flush=True)
        diary.note("line", number)
        loss = {} if x is None else {"loss": (x - 0.3) ** 2 + 1 / (1 + number)}
        quarterdeck.log({"n": number, **loss}, step=number)
        diary.note("point", number, *loss.values())
        with quarterdeck.atomic_write(checkpoint) as file:
            file.write(str(number).encode())
        if "--fail" in sys.argv and number == last:
            diary.note("end", 3)
            sys.exit(3)
        time.sleep(TICK)
    print(f"end {number}", flush=True)
    diary.note("end", 0)


if __name__ == "__main__":
    main()
