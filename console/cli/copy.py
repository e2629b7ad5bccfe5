"""Copying the log of one rank: nothing has to be merged, so it goes through as it lies on disk."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from console.cli.follow import later_attempt
from console.cli.ids import Target
from console.cli.output import narrate, terminal_width
from console.cli.patience import Patience
from console.client import Client, segment
from console.text import cut, expand_tabs, last_state, neutralise
from jobs.base.errors import InvalidInput, Unreachable

if TYPE_CHECKING:
    from jobs.wire.views import JobDetail

_ALL = 2**62
_PLAIN = bytes([0x09, 0x0A, *range(0x20, 0x7F)])
_LONGEST = 1 << 20
"""Bytes of a line after which it is broken, as the API does."""
_STATE = 8192
"""Bytes of a line that is being rewritten in which its newest state is looked for."""
_NOW_AND_THEN = 10.0
"""Seconds between states of such a line that a pipe gets."""


def copy_raw(
    client: Client, job: Target, detail: JobDetail, rank: int | None, *, follow: bool
) -> None:
    """One rank's log of one attempt to stdout, byte by byte.

    Raises InvalidInput when no rank is chosen of several.
    """
    if rank is None:
        if detail["ranks"] > 1:
            raise InvalidInput(
                f"{job.job} has {detail['ranks']} ranks, and --raw prints one log",
                "Choose one with --rank.",
            )
        rank = 0
    attempt = job.attempt if job.attempt is not None else detail["attempt"] or None
    _copy(client, job, attempt, rank, _write, follow=follow, patience=Patience(client))


def copy_text(client: Client, job: Target, detail: JobDetail, rank: int, *, follow: bool) -> None:
    """One rank's log to stdout, safe for a terminal. With `follow` until the job has ended, through
    its later attempts unless one was named."""
    patience = Patience(client)
    attempt = job.attempt if job.attempt is not None else max(detail["attempt"], 1)
    while True:
        text = SafeText(_write, terminal_width() if follow else None)
        _copy(client, job, attempt, rank, text.feed, follow=follow, patience=patience)
        text.end()
        if not follow or job.attempt is not None:
            return
        later = later_attempt(client, job, attempt)
        if later is None:
            return
        attempt = later
        narrate(f"attempt {attempt} starts")


def _copy(
    client: Client,
    job: Target,
    attempt: int | None,
    rank: int,
    sink: Callable[[bytes], None],
    *,
    follow: bool,
    patience: Patience,
) -> None:
    """All of a log, and with `follow` on until its attempt has ended, through restarts of the control
    plane. Raises Unreachable when that stayed away."""
    path = job.path("logs", segment(str(rank)), "raw")
    offset = 0

    def take(data: bytes) -> None:
        nonlocal offset
        patience.worked()
        sink(data)
        offset += len(data)

    while True:
        try:
            # What is there first, as one body; only what comes after it needs to be cut in pieces.
            client.copy(path, take, attempt=attempt, offset=offset, limit=_ALL)
            if follow:
                client.copy(path, take, attempt=attempt, offset=offset, follow=True)
            return patience.worked()
        except Unreachable as error:
            if not follow:
                raise
            patience.failed(error)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


class SafeText:
    """Passes text on line by line, with what a terminal would act on made visible.

    Most pieces hold nothing but printable ASCII, and go through as they are. Of a line that a progress bar
    rewrites, only its last state is passed on. While it is being rewritten a terminal shows its state, and
    anything else gets it as a line now and then.

    Args:
        columns: of the terminal that is written to; None for a pipe or a file.
        clock: seconds.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        columns: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._columns, self._clock = write, columns, clock
        self._rest = b""
        self._drawn = False  # a state is on the terminal's line
        self._told = clock()

    def feed(self, data: bytes) -> None:
        """Take the next piece; what is left of its last line waits for more."""
        data = self._rest + data if self._rest else data
        end = data.rfind(b"\n") + 1
        whole, self._rest = data[:end], data[end:]
        if whole:
            self._clear()
            self._write(whole if not whole.translate(None, _PLAIN) else _safe(whole))
        if b"\r" in self._rest:
            self._show_state()
        while len(self._rest) > _LONGEST:
            piece, self._rest = self._rest[:_LONGEST], self._rest[_LONGEST:]
            self._clear()
            self._write(_safe(piece + b"\n"))

    def _show_state(self) -> None:
        newest = self._rest[-_STATE:]
        text = neutralise(last_state(newest.decode("utf-8", "backslashreplace")))
        encoding = sys.stdout.encoding or "utf-8"
        if self._columns is not None:
            self._clear()
            shown = cut(expand_tabs(text), self._columns - 1)
            self._write(shown.encode(encoding, "backslashreplace"))
            self._drawn = True
        elif text.strip() and self._clock() - self._told >= _NOW_AND_THEN:
            self._told = self._clock()
            self._write(f"{text}\n".encode(encoding, "backslashreplace"))

    def _clear(self) -> None:
        if self._drawn:
            self._write(b"\r\x1b[K")
            self._drawn = False

    def end(self) -> None:
        """Nothing more comes: a last line without its end is one too."""
        self._clear()
        if self._rest:
            self._write(_safe(self._rest + b"\n"))
            self._rest = b""


def _safe(whole: bytes) -> bytes:
    """Lines, each with its end."""
    lines = whole.removesuffix(b"\n").split(b"\n")
    texts = (neutralise(last_state(x.decode("utf-8", "backslashreplace"))) for x in lines)
    encoding = sys.stdout.encoding or "utf-8"
    return "".join(f"{text}\n" for text in texts).encode(encoding, "backslashreplace")
