"""Cutting input files into units that can be done by themselves.

A unit is a range of bytes of a CSV or JSON lines file that begins and ends between two records, or row groups
of a Parquet file. The cut is the same each time, so it is made once and stored with the results.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

UNIT = 4 << 20
"""Bytes of a unit: some tenths of a second of work, so a killed run repeats little."""
MAX_RECORD = 64 << 20
"""Bytes in which a record has to end."""
KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


@dataclass(frozen=True)
class Source:
    """An input file as it was when it was cut. `columns`: a CSV file's header."""

    path: str
    kind: str
    size: int
    changed: int
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unit:
    """`source` is an index; `start` and `end` are bytes, or numbers of row groups."""

    number: int
    source: int
    start: int
    end: int
    weight: int  # bytes, for the progress

    @property
    def name(self) -> str:
        return f"part-{self.number:06d}"


def find(paths: Sequence[str]) -> list[Path]:
    """The files that are meant; of a folder those in it, sorted. Raises SystemExit."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in KINDS)
            if not inside:
                raise SystemExit(f"{path} has no file that ends in {', '.join(KINDS)}")
            found += inside
        elif path.suffix.lower() not in KINDS:
            raise SystemExit(f"{path}: a file ends in {', '.join(KINDS)}")
        elif not path.is_file():
            raise SystemExit(f"there is no file {path} on this node")
        else:
            found.append(path)
    if len({file.suffix.lower() for file in found}) > 1:
        raise SystemExit("all files of one run have the same format")
    return found


def look_at(paths: Sequence[str]) -> list[Source]:
    """Raises SystemExit for files that cannot be read."""
    return [_source(path) for path in find(paths)]


def _source(path: Path) -> Source:
    kind, about = KINDS[path.suffix.lower()], path.stat()
    columns: tuple[str, ...] = ()
    if kind == "csv":
        columns = tuple(next(csv.reader([_header(path)[0]]), ()))
        if len(set(columns)) < len(columns):
            raise SystemExit(f"{path}: its header names a column twice")
    return Source(str(path.resolve()), kind, about.st_size, about.st_mtime_ns, columns)


def _header(path: Path) -> tuple[str, int]:
    """The header line of a CSV file, and the bytes that it takes."""
    with path.open("rb") as file:
        line = file.readline(MAX_RECORD)
    if not line.strip():
        raise SystemExit(f"{path} has no header")
    return line.decode("utf-8-sig", errors="replace"), len(line)


def cut(sources: Sequence[Source], size: int = UNIT) -> Iterator[Unit]:
    """The units of all files, in order. Raises SystemExit for a record that does not end."""
    number = 0
    for index, source in enumerate(sources):
        for start, end, weight in _ranges(source, size):
            yield Unit(number, index, start, end, weight)
            number += 1


def _ranges(source: Source, size: int) -> Iterator[tuple[int, int, int]]:
    if source.kind == "parquet":
        yield from _row_groups(source, size)
        return
    start = _header(Path(source.path))[1] if source.kind == "csv" else 0
    with Path(source.path).open("rb") as file:
        for end in _ends(file, source, start, size):
            yield start, end, end - start
            start = end


def _ends(file: io.BufferedReader, source: Source, start: int, size: int) -> Iterator[int]:
    """Where units end. In CSV a line break between quotes ends no record, so quotes are counted."""
    file.seek(start)
    at, quoted, began = start, False, start
    while block := file.read(size):
        inside = quoted
        if source.kind == "csv":
            quoted = inside ^ bool(block.count(b'"') & 1)
        last = _last_break(block, inside, quotes=source.kind == "csv")
        if last and len(block) == size:  # what follows the last full block is part of its unit
            yield at + last
            began = at + last
        at += len(block)
        if at - began > MAX_RECORD:
            raise SystemExit(
                f"{source.path}: the record at byte {began} does not end within "
                f"{MAX_RECORD >> 20} MiB; is a quote left open?"
            )
    if began < at:
        yield at


def _last_break(block: bytes, inside: bool, *, quotes: bool) -> int:
    """Bytes up to the last line break that ends a record; 0 without one."""
    at = block.rfind(b"\n")
    while at >= 0 and quotes and inside ^ bool(block.count(b'"', 0, at) & 1):
        at = block.rfind(b"\n", 0, at)
    return at + 1


def _row_groups(source: Source, size: int) -> Iterator[tuple[int, int, int]]:
    from pyarrow import parquet

    with parquet.ParquetFile(source.path) as file:
        count = file.metadata.num_row_groups
        weights = [file.metadata.row_group(n).total_byte_size for n in range(count)]
    start, gathered = 0, 0
    for number, weight in enumerate(weights):
        gathered += weight
        if gathered >= size or number == count - 1:
            yield start, number + 1, gathered
            start, gathered = number + 1, 0
