"""A tunnel: many TCP connections over one byte stream, none of them held up by another.

The near end takes connections and numbers them; the far one (`agents/node/shells/tunnel.py`) connects each
to a port beside a rank. Standard library only, for the far end runs without our packages.

A frame is its kind, the connection's number, and a payload:

    OPEN      connect
    REFUSED   it could not be connected, with why in words
    DATA      bytes, no more than the other end has given credit for; CREDIT to begin with
    MORE      a number of 4 bytes: so many bytes were passed on, and as many more may come
    END       no more data from here; the other direction goes on (a half-closed connection)
    RESET     the connection is over, in both directions

To the far end they go in numbered batches, so that one whose answer was lost is sent again and counts once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

FRAME = struct.Struct("!cII")
BATCH = struct.Struct("!II")
"""Number of the batch, from 1 upwards, and its length."""
_COUNT = struct.Struct("!I")

OPEN, REFUSED, DATA, MORE, END, RESET = b"o", b"f", b"d", b"m", b"e", b"x"

CREDIT = 256 << 10
"""Bytes of one direction of a connection that may be on their way."""
PIECE = 32 << 10
"""Bytes of data in a frame at most: connections take turns."""


def frame(kind: bytes, number: int, payload: bytes = b"") -> bytes:
    return FRAME.pack(kind, number, len(payload)) + payload


def batch(number: int, content: bytes) -> bytes:
    return BATCH.pack(number, len(content)) + content


class Stream:
    """One connection as one end sees it, without its socket.

    Attributes:
        pending: what the socket has yet to take.
        ended: nothing more is read from the socket.
        closing: the other end sends no more; once `pending` is empty the socket's sending side is shut.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.pending = bytearray()
        self.ended = self.closing = False
        self._credit, self._owed = CREDIT, 0

    @property
    def room(self) -> int:
        """Bytes that may be read from the socket now."""
        return 0 if self.ended else min(PIECE, self._credit)

    @property
    def over(self) -> bool:
        return self.ended and self.closing and not self.pending

    def read(self, data: bytes) -> bytes:
        """The frame for what the socket gave; b"" is its end."""
        if not data:
            self.ended = True
            return frame(END, self.number)
        self._credit -= len(data)
        return frame(DATA, self.number, data)

    def written(self, count: int) -> bytes:
        """The socket took so many bytes of `pending`; the frame to send for it, if it is time for one."""
        del self.pending[:count]
        self._owed += count
        if self._owed * 4 < CREDIT or self.closing:
            return b""
        owed, self._owed = self._owed, 0
        return frame(MORE, self.number, _COUNT.pack(owed))

    def take(self, kind: bytes, payload: bytes) -> None:
        """A frame of the other end: DATA, MORE or END. Raises ValueError for one that breaks the rules."""
        if kind == DATA and not self.closing:
            self.pending += payload
            if len(self.pending) + self._owed > CREDIT:
                raise ValueError("more data than there was credit for")
        elif kind == MORE and len(payload) == _COUNT.size:
            self._credit += _COUNT.unpack(payload)[0]
        elif kind == END:
            self.closing = True
        else:
            raise ValueError(f"a frame that does not fit here: {kind!r}")


class Frames:
    """Takes bytes as they come, gives whole frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
        """Kind, connection and payload of each frame that is whole. Raises ValueError for what is none."""
        self._rest += data
        while len(self._rest) >= FRAME.size:
            kind, number, length = FRAME.unpack_from(self._rest)
            if length > CREDIT:
                raise ValueError("a frame that is too large")
            if len(self._rest) < FRAME.size + length:
                return
            payload = bytes(self._rest[FRAME.size : FRAME.size + length])
            del self._rest[: FRAME.size + length]
            yield kind, number, payload


class Batches:
    """Takes bytes as they come, gives the content of each batch once."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._last = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._rest += data
        while len(self._rest) >= BATCH.size:
            number, length = BATCH.unpack_from(self._rest)
            if len(self._rest) < BATCH.size + length:
                return
            content = bytes(self._rest[BATCH.size : BATCH.size + length])
            del self._rest[: BATCH.size + length]
            if number > self._last:
                self._last = number
                yield content
