"""Whether a file's own content says that it is whole. Nothing is unpickled, and nothing executed.

torch.save, Lightning and numpy.savez write zip files, which end in a directory of what they hold: a file
that is cut, or still being written, has none. A safetensors file begins with how long it is.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Literal

Form = Literal["whole", "torn", "unknown"]

TAIL = 66_000
"""Bytes of a file's end that are looked at: a zip's comment has at most 65,535."""
HEAD = 8
_SHARD = re.compile(rb"__\d{1,9}_\d{1,9}\.distcp")
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_LOCATOR64 = b"PK\x06\x07"
_FULL = 0xFFFFFFFF


def of_zip(tail: bytes, size: int) -> Form:
    """Of a file that begins as a zip does.

    Args:
        tail: its last bytes, `TAIL` of them or all.
        size: of the file, bytes.
    """
    at = tail.rfind(_END)
    while at >= 0:
        if _ends_at(tail, at, size):
            return "whole"
        at = tail.rfind(_END, 0, at)  # the comment may look like one
    return "torn"


def _ends_at(tail: bytes, at: int, size: int) -> bool:
    """Whether the record at `at` ends the file."""
    if len(tail) < at + 22:
        return False
    length, offset, comment = struct.unpack_from("<IIH", tail, at + 12)
    here: int = size - len(tail) + at
    if here + 22 + comment != size:
        return False
    if offset != _FULL and length != _FULL:
        return bool(offset + length <= here)
    locator = at - 20
    if locator < 0 or tail[locator : locator + 4] != _LOCATOR64:
        return False
    return bool(struct.unpack_from("<Q", tail, locator + 8)[0] + 56 + 20 <= here)


def is_zip(head: bytes) -> bool:
    """`head`: the first bytes of a file."""
    return head[:4] == b"PK\x03\x04"


def safetensors_header(head: bytes) -> int | None:
    """Bytes of a safetensors file's header, from the first eight; None when that cannot be one."""
    if len(head) < HEAD:
        return None
    length: int = struct.unpack_from("<Q", head)[0]
    return length if 2 <= length <= 100 << 20 else None


def of_safetensors(header: bytes, size: int) -> Form:
    """Args:
    header: its JSON. size: of the file, bytes.
    """
    try:
        tensors = json.loads(header)
        ends = [item["data_offsets"][1] for name, item in tensors.items() if name != "__metadata__"]
        expected = HEAD + len(header) + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return "unknown"
    return "whole" if size == expected else "torn"


def shards_of(metadata: bytes) -> set[str]:
    """The files that the `.metadata` of a torch DCP checkpoint names."""
    return {match.decode() for match in set(_SHARD.findall(metadata))}
