"""CPU time and memory of process trees, from one pass over /proc.

psutil's `children(recursive=True)` scans all processes for each root; with a rank per GPU that is the
whole table eight times a second.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    started: int  # clock ticks after boot; with the pid it names a process for good
    cpu: float  # seconds of user and system time, its own
    rss: int  # bytes


def parse_stat(text: str) -> Process:
    """One line of /proc/PID/stat (proc_pid_stat(5)). The command's name may hold spaces and brackets,
    so fields are counted from its last closing one. Raises ValueError for anything else."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    if len(fields) < 22:
        raise ValueError(f"not a line of /proc/PID/stat: {text!r}")
    return Process(
        pid=int(head.split(" ", 1)[0]),
        parent=int(fields[1]),
        started=int(fields[19]),
        cpu=(int(fields[11]) + int(fields[12])) / _TICK,
        rss=int(fields[21]) * _PAGE,
    )


def process_table(proc: Path = Path("/proc")) -> dict[int, Process]:
    """All processes that can be read now."""
    table: dict[int, Process] = {}
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                process = parse_stat((folder / "stat").read_text("utf-8", "replace"))
            except (OSError, ValueError):  # it ended between the two calls
                continue
            table[process.pid] = process
    return table


def trees(table: dict[int, Process], roots: Iterable[int]) -> list[Process]:
    """The root processes that are in the table and all their descendants, each once."""
    children: dict[int, list[Process]] = defaultdict(list)
    for process in table.values():
        children[process.parent].append(process)
    found: dict[int, Process] = {}
    todo = [table[pid] for pid in roots if pid in table]
    while todo:
        process = todo.pop()
        if process.pid not in found:
            found[process.pid] = process
            todo.extend(children[process.pid])
    return list(found.values())
