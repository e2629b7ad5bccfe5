"""Blobs that a node reads from object storage itself, with a URL that the controller has signed for them.

The head's link is not on the way, and the node has no credentials. What comes goes through `Arrivals`: it is
checked, and a fetch that was cut continues where it ended.
"""

from __future__ import annotations

import asyncio
import time
from http.client import HTTPException, HTTPResponse
from typing import cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from agents.node.staging.arrivals import Arrivals
from jobs.base.errors import InvalidInput, Unreachable

CHUNK = 4 << 20
TURN = 15.0
"""Seconds after which a call returns with what is here by then: its caller reports, and signs a new URL."""
_PATIENCE = 15.0


async def fetch(arrivals: Arrivals, digest: str, size: int, url: str) -> int:
    """Fetch a blob, or continue; gives how many of its bytes are here. Its caller asks until all are.

    Args:
        digest: of the blob, in hex. size: its bytes.
        url: where it is; good for some minutes. It is never shown: whoever has it can read the blob.

    Raises Unreachable when this node cannot read from there, InvalidInput when it has other content, and
    StorageFull.
    """
    until = time.monotonic() + TURN
    held = await arrivals.put(digest, 0, size, b"")
    if held >= size:
        return size
    response = await asyncio.to_thread(_opened, url, held)
    try:
        while held < size and time.monotonic() < until:
            try:
                data = await asyncio.to_thread(response.read, CHUNK)
            except (OSError, HTTPException) as error:
                raise _away(url, error) from None
            if not data:
                break
            held = await arrivals.put(digest, held, size, data[: size - held])
    finally:
        response.close()
    return held


def _opened(url: str, offset: int) -> HTTPResponse:
    if urlsplit(url).scheme not in ("http", "https"):
        raise InvalidInput("a blob is fetched from an http:// or https:// URL")
    request = Request(url, headers={"Range": f"bytes={offset}-"})  # noqa: S310 - see above
    try:
        response = cast("HTTPResponse", urlopen(request, timeout=_PATIENCE))  # noqa: S310
    except (OSError, HTTPException) as error:
        raise _away(url, error) from None
    if response.status != 206:
        response.close()
        raise _away(url, OSError(f"it answers with status {response.status}"))
    return response


def _away(url: str, error: Exception) -> Unreachable:
    why = (
        f"status {error.code}" if isinstance(error, HTTPError) else getattr(error, "reason", error)
    )
    return Unreachable(f"this node cannot read from {urlsplit(url).netloc}: {why}")
