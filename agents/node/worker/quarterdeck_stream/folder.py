"""Records from a folder: new files, and lines that are appended to known ones.

A position is, for each file, up to where it was read, and a checksum of what is before that: a file that was
replaced under its name is read from its beginning. Files are JSON lines (`.jsonl`, `.ndjson`) or CSV (`.csv`,
whose first line names the columns). A last line without its newline is still being written, and waits.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import stat
import sys
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from .rules import typed

JSON_LINES = (".jsonl", ".ndjson")
CSV = (".csv",)
LONGEST = 1 << 20
"""Bytes of a record; a longer one is a bad one."""
CUT = 10_000
"""Bytes that are kept of a bad record."""
MAX_LINES = 100
"""Lines of one CSV record: a quote that nobody closes does not stop the stream."""
TURN = 10_000
"""Records of one file before it is another one's turn."""
LOOK = 0.5
"""Seconds between two looks for new files or lines."""
UNFINISHED = 60.0
"""Seconds after which a last line without a newline is worth a word."""
MOST_FILES = 100_000
"""Files of a position, from which those that are gone are forgotten."""
_END = 1024


class Read(NamedTuple):
    """One record, or why it is none. `raw`: as it is in the source. `where`: file and offset."""

    record: dict[str, Any] | None
    reason: str
    raw: bytes
    where: str


class Folder:
    """Args:
    path: the folder.
    types: the type of a column, for CSV files.
    """

    def __init__(self, path: str, types: Mapping[str, str]) -> None:
        self._path, self._types = path, types
        self._files: dict[str, dict[str, int]] = {}
        self._seen: dict[str, tuple[int, int, int]] = {}
        """Size, time and inode of a file when all of it was read."""
        self._told: set[str] = set()
        self._open: tuple[BinaryIO, dict[str, int]] | None = None
        self._reads = self._all()

    def restore(self, position: Mapping[str, Any]) -> None:
        self._files = {name: dict(entry) for name, entry in position["files"].items()}

    def position(self) -> dict[str, Any]:
        """Up to what was given out by `read`."""
        if self._open is not None:
            file, entry = self._open
            entry["sum"] = checksum(file, entry["at"])
        if len(self._files) > MOST_FILES:
            there = self._look()
            self._files = {name: entry for name, entry in self._files.items() if name in there}
        return {"files": {name: dict(entry) for name, entry in self._files.items()}}

    def read(self) -> Read | None:
        """The next record;  None when there is none at present."""
        return next(self._reads)

    def wait(self, seconds: float) -> None:
        time.sleep(min(seconds, LOOK))

    def over(self) -> bool:
        """Whether all that there is was read, after `read` gave None."""
        return True

    def committed(self) -> None:
        """What was read is durable."""

    def behind(self) -> int:
        """Bytes that are there and not read."""
        sizes = (size - self._at(name) for name, (size, _, _) in self._look().items())
        return sum(size for size in sizes if size > 0)

    def close(self) -> None:
        self._reads.close()  # type: ignore[attr-defined]

    # -- files --------------------------------------------------------------------------------------

    def _all(self) -> Iterator[Read | None]:
        while True:
            found = False
            for name, known in sorted(self._look().items()):
                if self._seen.get(name) == known:
                    continue
                for read in self._file(name):
                    found = True
                    yield read
            if not found:
                yield None

    def _look(self) -> dict[str, tuple[int, int, int]]:
        found: dict[str, tuple[int, int, int]] = {}
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith(".") or not name.lower().endswith(JSON_LINES + CSV):
                        continue
                    try:
                        now = entry.stat()
                    except OSError:  # it is gone again, or a link to nothing
                        continue
                    if stat.S_ISREG(now.st_mode):
                        found[name] = (now.st_size, now.st_mtime_ns, now.st_ino)
        except FileNotFoundError:
            self._tell(f"{self._path} is not there yet")
        except OSError as error:
            self._tell(f"{self._path} cannot be read: {error.strerror}")
        return found

    def _at(self, name: str) -> int:
        return self._files.get(name, {}).get("at", 0)

    def _file(self, name: str) -> Iterator[Read]:
        """What is new in a file, up to its last newline or the end of its turn."""
        try:
            file = open(os.path.join(self._path, name), "rb")  # noqa: PTH118, PTH123, SIM115
        except OSError as error:
            self._tell(f"{name} cannot be read: {error.strerror}")
            return
        with file:
            now = os.fstat(file.fileno())
            entry = self._files.setdefault(name, {"at": 0, "sum": 0})
            if entry["at"] > now.st_size or checksum(file, entry["at"]) != entry["sum"]:
                self._say(f"{name} was replaced: it is read from its beginning")
                entry["at"] = 0
            self._open = (file, entry)
            try:
                if (yield from self._records(name, file, entry)):
                    self._seen[name] = (now.st_size, now.st_mtime_ns, now.st_ino)
                elif time.time() - now.st_mtime > UNFINISHED:
                    self._tell(f"the end of {name} has no newline, and is not read")
            finally:
                self._settle()

    def _settle(self) -> None:
        """The checksum of the file that is open, up to where it was read."""
        if self._open is not None:
            file, entry = self._open
            entry["sum"] = checksum(file, entry["at"])
            self._open = None

    def _records(
        self, name: str, file: BinaryIO, entry: dict[str, int]
    ) -> Generator[Read, None, bool]:
        """Returns whether all of the file was read."""
        parse: Callable[[bytes], dict[str, Any]] = of_json
        if name.lower().endswith(CSV):
            header = next(rows(file, 0), None)
            if header is None:
                return os.fstat(file.fileno()).st_size == 0
            try:
                columns = _columns(header[0])
            except ValueError as error:
                entry["at"] = os.fstat(file.fileno()).st_size
                yield Read(None, f"the header: {error}", header[0].strip(), f"{name}:0")
                return True
            entry["at"] = max(entry["at"], len(header[0]))
            parse = functools.partial(of_csv, columns, self._types)
            found = rows(file, entry["at"])
        else:
            found = lines(file, entry["at"])
        for count, (raw, more) in enumerate(found, 1):
            where = f"{name}:{entry['at']}"
            entry["at"] += len(raw) + more
            line = raw.rstrip(b"\r\n")
            if more:
                yield Read(None, f"it is longer than {LONGEST} bytes", raw[:CUT], where)
            elif line.strip():
                yield parsed(line, parse, where)
            if count >= TURN:
                return False
        return entry["at"] >= os.fstat(file.fileno()).st_size

    def _say(self, text: str) -> None:
        sys.stderr.write(f"quarterdeck_stream: {text}\n")

    def _tell(self, text: str) -> None:
        """Once."""
        if text not in self._told:
            self._told.add(text)
            self._say(text)


def parsed(line: bytes, parse: Callable[[bytes], dict[str, Any]], where: str) -> Read:
    """A record, or why it is none."""
    try:
        return Read(parse(line), "", line, where)
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except (ValueError, csv.Error) as error:
        reason = str(error)
    except RecursionError:
        reason = "it is nested too deeply"
    return Read(None, reason, line, where)


def checksum(file: BinaryIO, at: int) -> int:
    """Of the first and the last bytes before `at`."""
    first = os.pread(file.fileno(), min(at, _END), 0)
    return zlib.crc32(os.pread(file.fileno(), min(at, _END), max(0, at - _END)), zlib.crc32(first))


def lines(file: BinaryIO, at: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines from an offset, with their newlines; of one that is too long its beginning, and how many
    bytes follow it."""
    file.seek(at)
    while True:
        raw, more = file.readline(LONGEST), 0
        last = raw
        while len(last) == LONGEST and not last.endswith(b"\n"):
            last = file.readline(LONGEST)
            more += len(last)
        if not last.endswith(b"\n"):
            return
        yield raw, more


def rows(file: BinaryIO, at: int) -> Iterator[tuple[bytes, int]]:
    """As `lines`, where a quoted field may hold newlines."""
    again = True
    while again:
        again = False
        held: list[bytes] = []
        for raw, more in lines(file, at):
            held.append(raw)
            whole = b"".join(held)
            unclosed = b'"' in whole and not more and _unclosed(whole)
            if unclosed and len(held) < MAX_LINES and len(whole) < LONGEST:
                continue
            if unclosed:  # a quote too many: the first line alone is bad
                whole, more = held[0], 0
            yield whole, more
            at += len(whole) + more
            if unclosed:
                again = True
                break
            held = []


def _unclosed(whole: bytes) -> bool:
    try:
        list(csv.reader([whole.decode("utf-8", "replace")], strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _columns(raw: bytes) -> list[str]:
    """The names in a header. Raises ValueError."""
    names = _fields(raw.rstrip(b"\r\n").decode("utf-8-sig"))
    for number, name in enumerate(names):
        if not name:
            raise ValueError(f"column {number + 1} has no name")
        if name in names[:number]:
            raise ValueError(f"{name} is there twice")
    return names


def _fields(text: str) -> list[str]:
    return next(csv.reader([text], strict=True), [])


def of_csv(columns: list[str], types: Mapping[str, str], line: bytes) -> dict[str, Any]:
    """Raises ValueError, csv.Error."""
    fields = _fields(line.decode())
    if len(fields) != len(columns):
        raise ValueError(f"it has {len(fields)} fields, and the header {len(columns)}")
    record = {}
    for name, text in zip(columns, fields):  # noqa: B905 - Python 3.8
        try:
            record[name] = typed(text, types.get(name))
        except ValueError:
            raise ValueError(f"{name} is {text[:80]!r}, not {types[name]}") from None
    return record


def of_json(line: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    found = json.loads(line.decode(), parse_constant=_no_json)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - as for all that is wrong
    return found


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
