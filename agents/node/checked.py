"""Records of a guard, as far as they are what a guard writes.

They lie where its ranks may write, too. One that is damaged counts as one that is not there, which the agent
can live with anyway: whatever a rank does to them, its own attempt alone fails of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agents.node.guard import records

_OUTCOMES = frozenset(("", "done", "failed", "stopped", "fenced", "died", "refused"))
_PHASES = frozenset(("running", "stopping", "ended"))

Check = Callable[[Any], bool]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 65_536 and value.isascii() | _utf8(value)


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


_RANK: dict[str, Check] = {
    "rank": lambda value: _whole(value) and value >= 0,
    "local_rank": lambda value: _whole(value) and value >= 0,
    "pid": _or_none(lambda value: _whole(value) and value > 0),
    "started_at": _or_none(_number),
    "exit_code": _or_none(_whole),
    "signal": _or_none(lambda value: _whole(value) and 0 < value < 128),
    "ended_at": _or_none(_number),
}


_RANK_CLOCK: dict[str, Check] = {
    "began": _or_none(_number),
    "ran": _or_none(lambda value: _number(value) and value >= 0),
}
"""What guards of older versions do not write."""


def _ranks(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(rank, dict)
        and _is(rank, _RANK)
        and all(check(rank[key]) for key, check in _RANK_CLOCK.items() if key in rank)
        for rank in value
    )


def _is(record: Mapping[str, Any], shape: Mapping[str, Check]) -> bool:
    return all(name in record and check(record[name]) for name, check in shape.items())


_STATE: dict[str, Check] = {
    "phase": lambda value: isinstance(value, str) and value in _PHASES,
    "outcome": lambda value: isinstance(value, str) and value in _OUTCOMES,
    "reason": _text,
    "ranks": _ranks,
}
_OPTIONAL: dict[str, Check] = {
    "first_failed": _or_none(_whole),
    "first_failed_at": _or_none(_number),
}


def state(folder: Path, name: str) -> dict[str, Any] | None:
    """`state.json` or `exit.json`; None when it is not there, or none."""
    record = records.read_json(str(folder / name))
    if record is None:
        return None
    # An attempt whose guard died before it wrote anything has an end with less in it.
    full = {"phase": "ended", "outcome": "", "reason": "", "ranks": [], **record}
    given = {key: check for key, check in _OPTIONAL.items() if key in full}
    return full if _is(full, _STATE | given) else None


def handle(folder: Path) -> dict[str, Any] | None:
    """`handle.json`: which process the guard is. Its cgroup is one that the guard of this attempt makes:
    what is in it gets killed."""
    record = records.read_json(str(folder / records.HANDLE))
    shape: dict[str, Check] = {
        "pid": lambda value: _whole(value) and value > 1,
        "start_time": _or_none(_whole),
        "boot_id": _text,
    }
    if record is None or not _is(record, shape):
        return None
    cgroup = record.get("cgroup")
    ours = isinstance(cgroup, str) and f"/qd-{folder.name}-" in cgroup and ".." not in cgroup
    return {**record, "cgroup": cgroup if ours else None}
