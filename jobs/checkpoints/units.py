"""Which checkpoints in a folder are whole, by what two looks at it saw.

A unit is what lies at the top of the checkpoint folder: a file (`last.pt`) or a folder (`checkpoint-500`)
with all that is in it. The rules are told to people in docs/checkpoints.md.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from jobs.checkpoints.forms import Form

SETTLED = 30.0
"""Seconds without a change after which a file counts as whole that says nothing about itself."""
METADATA = ".metadata"
_HUGGING_FACE = re.compile(r"checkpoint-\d+")
_TRAINER_STATE = "trainer_state.json"
_SHARD = ".distcp"


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was seen.

    Attributes:
        size, mtime: bytes; unix time in ns. link: where a link leads; None for a file.
        still: seconds for which looks have seen it as it is now; 0 at the first.
        renamed: what happened to it last was no write: it was put into place.
        form: what its content says.
        shards: of a `.metadata`, the files that it names.
    """

    size: int
    mtime: int
    still: float
    renamed: bool = False
    form: Form = "unknown"
    link: str | None = None
    mode: int = 0o644
    shards: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Unit:
    """One checkpoint, or one node's share of it. `files`: by path below the checkpoint folder. `missing`:
    shards that belong to it and are not here, so they have to be on other nodes."""

    name: str
    whole: bool
    files: Mapping[str, Seen] = field(hash=False)
    missing: frozenset[str] = frozenset()

    @property
    def mtime(self) -> int:
        """Unix time in ns of its newest file."""
        return max((seen.mtime for seen in self.files.values()), default=0)


def units(files: Mapping[str, Seen], placed: Collection[str] = ()) -> list[Unit]:
    """All units of a folder, by name.

    Args:
        files: by path below the folder.
        placed: the folders at its top that were put there under this name, whole.
    """
    tops: dict[str, dict[str, Seen]] = defaultdict(dict)
    for path, seen in files.items():
        tops[path.partition("/")[0]][path] = seen
    found = []
    for name, members in sorted(tops.items()):
        if name in members:
            whole = _file(members[name]) and _leads_somewhere(members[name], tops)
            found.append(Unit(name, whole, members))
        else:
            found.append(_folder(name, members, name in placed))
    return found


def _leads_somewhere(seen: Seen, tops: Collection[str]) -> bool:
    """A link is worth as much as what it leads to: something beside it."""
    return seen.link is None or seen.link.removeprefix("./").rstrip("/") in tops


def _file(seen: Seen) -> bool:
    if seen.form == "torn":
        return False
    if seen.renamed and seen.link is None:  # perhaps many times a second: no two looks see the same
        return True
    if seen.still <= 0:
        return False
    return seen.form == "whole" or seen.link is not None or seen.still >= SETTLED


def _folder(name: str, members: Mapping[str, Seen], placed: bool) -> Unit:
    inner = {path[len(name) + 1 :]: seen for path, seen in members.items()}
    quiet = all(seen.still > 0 and seen.form != "torn" for seen in inner.values())
    metadata = inner.get(METADATA)
    if metadata is not None:
        return _dcp(name, members, inner, metadata, quiet)
    if any(path.endswith(_SHARD) for path in inner):  # the node of rank 0 has the rest
        return Unit(name, quiet, members)
    if _HUGGING_FACE.fullmatch(name) and _TRAINER_STATE in inner:  # is written last
        return Unit(name, quiet, members)
    settled = all(_file(seen) for seen in inner.values()) and (
        placed or min((seen.still for seen in inner.values()), default=0.0) >= SETTLED
    )
    return Unit(name, quiet and settled, members)


def _dcp(
    name: str,
    members: Mapping[str, Seen],
    inner: Mapping[str, Seen],
    metadata: Seen,
    quiet: bool,
) -> Unit:
    """torch.distributed.checkpoint: `.metadata` is put into place when every rank has written its shards,
    and names them. Shards that are newer are of the next save to the same folder."""
    newer = any(
        seen.mtime > metadata.mtime for path, seen in inner.items() if path.endswith(_SHARD)
    )
    # Lightning writes what is not sharded after it.
    unfinished = name.endswith(".ckpt") and "meta.pt" not in inner
    whole = quiet and bool(metadata.shards) and not newer and not unfinished
    return Unit(name, whole, members, metadata.shards - inner.keys())


def whole_mtime(found: Iterable[Unit]) -> int:
    """Unix time in ns of the newest unit that is whole; 0 without one."""
    return max((unit.mtime for unit in found if unit.whole), default=0)
