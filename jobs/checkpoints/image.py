"""What is copied of a gang's checkpoint folders: the newest checkpoint that is whole on all of its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.checkpoints.names import read_name
from jobs.wire.messages import HeldUnit

Copying = Literal["latest", "all", "off"]

CLOCKS = 5.0
"""Seconds by which the clocks of two nodes may differ."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of an image and the node that has it."""

    node: str
    path: str
    mode: int
    size: int
    sha256: str  # hex; empty for a link
    mtime: float
    held: bool = True
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """Files by path, the names of the units that they are, the highest step among these, and the time of
    the newest file."""

    files: Mapping[str, Source]
    names: tuple[str, ...]
    step: int | None
    at: float


def newest(parts: Mapping[str, Sequence[HeldUnit]], copying: Copying) -> Image | None:
    """The image of what the nodes of a gang hold; None without a checkpoint that is whole on all of them.

    Args:
        parts: the units of each node, in the order of their node ranks.
        copying: `latest`: of each series, the newest one (`jobs.checkpoints.names`); `all`: all.
    """
    whole = [name for name in _names(parts) if _is_whole(name, parts)]
    chosen: list[str] = []
    if copying == "all":
        chosen = whole
    else:
        best: dict[str, tuple[int, str]] = {}
        for name in whole:
            series, order, _ = read_name(name)
            best[series] = max(best.get(series, (-1, "")), (-1 if order is None else order, name))
        chosen = sorted(name for _, name in best.values())
    files: dict[str, Source] = {}
    steps: list[int] = []
    about: list[int] = []
    for name in chosen:
        for node, units in parts.items():
            for unit in units:
                if unit["name"] != name:
                    continue
                named = read_name(name).step
                if named is not None:
                    steps.append(named)
                elif unit["step"] is not None:
                    about.append(unit["step"])
                for file in unit["files"]:
                    # Of two nodes' files of the same name, the first node's.
                    files.setdefault(
                        file["path"],
                        Source(
                            node,
                            file["path"],
                            file["mode"],
                            file["size"],
                            file["sha256"],
                            file["mtime"],
                            file["held"],
                            file.get("link"),
                        ),
                    )
    files = {path: file for path, file in files.items() if _leads(file, chosen)}
    if not any(file.link is None for file in files.values()):
        return None
    at = max(file.mtime for file in files.values() if file.link is None)
    return Image(files, tuple(chosen), max(steps or about, default=None), at)


def _leads(file: Source, chosen: Sequence[str]) -> bool:
    """A link at the top to a checkpoint that is not copied would lead nowhere."""
    if file.link is None or "/" in file.path:
        return True
    return file.link.removeprefix("./").rstrip("/") in chosen


def _names(parts: Mapping[str, Sequence[HeldUnit]]) -> list[str]:
    return sorted({unit["name"] for units in parts.values() for unit in units})


def _is_whole(name: str, parts: Mapping[str, Sequence[HeldUnit]]) -> bool:
    """Whether every node's share of it is whole, and none is still to come."""
    shares = [unit for units in parts.values() for unit in units if unit["name"] == name]
    if not all(unit["whole"] for unit in shares):
        return False
    paths = {file["path"] for unit in shares for file in unit["files"]}
    for unit in shares:
        if any(f"{name}/{shard}" not in paths for shard in unit["missing"]):
            return False
    if any(unit["sharded"] for unit in shares):
        headed = [unit["headed_at"] for unit in shares if unit["headed_at"] is not None]
        if not headed:
            return False  # nobody has written which shards belong to it
        shards = [unit for unit in shares if unit["headed_at"] is None]
        return all(_mtime(unit) <= max(headed) + CLOCKS for unit in shards)
    # Who has written an earlier one of the kind will write this one too.
    series, order, _ = read_name(name)
    if order is None:
        return True
    for units in parts.values():
        names = [unit["name"] for unit in units]
        if name not in names and any(
            other.series == series and (other.order or 0) < order for other in map(read_name, names)
        ):
            return False
    return True


def _mtime(unit: HeldUnit) -> float:
    return max((file["mtime"] for file in unit["files"]), default=0.0)
