"""What a gang may use of a node's memory: the kernel sees to it where it can, else the guard looks.

The kernel needs a cgroup (v2) of the gang's own that has the memory controller, and gives that to no group
below one with processes of its own: so under systemd the guard sits in a leaf beside it (`scope.py`), while
in a container's root there is nothing to do. Elsewhere the guard adds up what the ranks' processes hold about
once a second and ends the gang when that is too much: later than the kernel would, and before the
machine's own out-of-memory killer, which may take anybody.

Standard library only: the guard loads this, and its memory is counted.
"""

# pathlib would add a fifth to a guard's memory.
# ruff: noqa: PTH120, PTH123, PTH208

from __future__ import annotations

import contextlib
import os

TYPE_CHECKING = False  # the real one would load `typing`
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PAGE = os.sysconf("SC_PAGE_SIZE")


TICK = 1.0
"""Seconds between two looks at what ranks hold."""


class Limit:
    """Keeps a gang's ranks on this node within `allowed` bytes; None allows what there is.

    Args:
        cgroup: of the ranks, if they have one.
    """

    def __init__(self, allowed: int | None, cgroup: str | None) -> None:
        self._allowed, self._cgroup = allowed, cgroup
        self._capped = bool(allowed and cgroup and cap(cgroup, allowed))
        self._due = 0.0
        self._killed = False

    def passed(self, ranks: Iterable[int], now: float) -> tuple[int, str] | None:
        """The rank (by its pid) that holds most when together they hold too much, and that in words.

        Args:
            ranks: pids of those that live.
            now: boot clock, seconds.
        """
        if self._allowed is None or now < self._due:
            return None
        self._due = now + TICK
        if self._capped:
            return self._bereft(ranks)
        held = over(ranks, self._allowed)
        if not held:
            return None
        text = f"the ranks here hold {words(sum(held.values()))}, and memory: allows "
        text += f"{words(self._allowed)} (looked at once a second)"
        return max(held, key=lambda pid: held[pid]), text

    def _bereft(self, ranks: Iterable[int]) -> tuple[int, str] | None:
        """The same where the kernel sees to it: it kills one process, which may be a child that its rank
        waits for without end. A rank that was killed itself is reaped before the next look."""
        if not self._cgroup or not killed_for_memory(self._cgroup):
            return None
        if not self._killed:
            self._killed = True
            return None
        held = used(ranks)
        if not held or not self._allowed:
            return None
        text = f"the kernel killed a process of the ranks here, for memory: allows {words(self._allowed)}"
        return max(held, key=lambda pid: held[pid]), text

    def story(self) -> str:
        """What the kernel killed a rank for, if it was this."""
        if self._allowed and self._capped and self._cgroup and killed_for_memory(self._cgroup):
            return f"the kernel killed it, for memory: allows {words(self._allowed)} here"
        return ""


def cap(cgroup: str, limit: int) -> bool:
    """Have the kernel keep a cgroup below `limit` bytes, swap included; whether it does."""
    try:
        control = f"{os.path.dirname(cgroup)}/cgroup.subtree_control"
        with contextlib.suppress(OSError), open(control, "w") as file:  # it may have it already
            file.write("+memory")
        with open(f"{cgroup}/memory.max", "w") as file:
            file.write(str(limit))
        with contextlib.suppress(OSError), open(f"{cgroup}/memory.swap.max", "w") as file:
            file.write("0")
    except OSError:
        return False
    return True


def killed_for_memory(cgroup: str) -> bool:
    """Whether the kernel has killed a process of a cgroup because that was full."""
    with contextlib.suppress(OSError, ValueError), open(f"{cgroup}/memory.events") as file:
        events = dict(line.split() for line in file)
        return int(events.get("oom_kill", "0")) > 0
    return False


def used(roots: Iterable[int], proc: str = "/proc") -> dict[int, int]:
    """Bytes that each of these processes and its descendants hold, memory that they share counted once
    for each of them."""
    return _sums(roots, _table(proc), {})


def used_exactly(roots: Iterable[int], proc: str = "/proc") -> dict[int, int]:
    """The same, with shared memory divided among those that share it. It costs the kernel a walk through
    all of their pages."""
    table = _table(proc)
    exact = {}
    for pid in _members(roots, table):
        try:
            with open(f"{proc}/{pid}/smaps_rollup") as file:
                exact[pid] = sum(int(line.split()[1]) for line in file if line[:4] == "Pss:") * 1024
        except (FileNotFoundError, ProcessLookupError):
            exact[pid] = 0  # it has ended since it was listed
        except OSError:
            pass  # nobody may look into it
    return _sums(roots, table, exact)


def over(roots: Iterable[int], limit: int) -> dict[int, int]:
    """What each process tree holds when together it is more than `limit` bytes, else nothing.

    It is looked at twice. Processes are read one after the other, and when some that share memory end
    meanwhile, the rest have larger shares, which add up to more than there ever was.
    """
    roots = list(roots)
    found = used(roots)
    for _ in range(2):
        if sum(found.values()) > limit:
            found = used_exactly(roots)
    return found if sum(found.values()) > limit else {}


def words(size: int) -> str:
    """Bytes for people. (The product's own formatting would load too much here.)"""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _table(proc: str) -> dict[int, tuple[int, int]]:
    """All processes: pid -> (parent, resident bytes)."""
    table = {}
    for name in filter(str.isdigit, os.listdir(proc)):
        with contextlib.suppress(OSError, IndexError), open(f"{proc}/{name}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
            table[int(name)] = int(fields[1]), int(fields[21]) * _PAGE
    return table


def _members(roots: Iterable[int], table: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """pid -> the root it descends from."""
    members = {root: root for root in roots if root in table}
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    todo = list(members)
    while todo:
        pid = todo.pop()
        for child in children.get(pid, ()):
            if child not in members:
                members[child] = members[pid]
                todo.append(child)
    return members


def _sums(
    roots: Iterable[int], table: Mapping[int, tuple[int, int]], exact: Mapping[int, int]
) -> dict[int, int]:
    sums: dict[int, int] = {}
    for pid, root in _members(roots, table).items():
        sums[root] = sums.get(root, 0) + exact.get(pid, table[pid][1])
    return sums
