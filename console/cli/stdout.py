"""The standard streams of a command: whatever becomes of them is told as what it is.

A reader that leaves (`qd logs j1 | head`), a full disk or a closed descriptor shows as an OSError of the
write that meets it. Such a write may lie in the middle of a call to the control plane, whose own failures
are OSErrors too. So stdout writes through one raw stream here, which raises errors of its own kind.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

from jobs.base.errors import QuarterdeckError


class ReaderLeft(Exception):
    """Whoever read our output has left, so the command ends without a word."""


class OutputFailed(QuarterdeckError):
    """Standard output does not take what the command has to say."""

    code = "output"


class _Raw(io.RawIOBase):
    """Descriptor 1 or 2. A slow reader is waited for, also where the descriptor does not block."""

    def __init__(self, descriptor: int, *, closed: bool, required: bool) -> None:
        self._descriptor, self._closed = descriptor, closed
        self._required = required
        self._given_up = False

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return not self._closed and os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = len(data)
        if self._given_up:  # said once; the interpreter flushes again as it ends
            return size
        try:
            if self._closed:
                raise OSError(errno.EBADF, "it is closed")
            return self._written(data)
        except OSError as error:
            self._given_up = True
            if not self._required:
                return size
            if error.errno == errno.EPIPE:
                raise ReaderLeft from None
            raise OutputFailed(
                f"cannot write to standard output: {error.strerror}",
                "The job and the cluster are not touched by this; only the output is lost.",
            ) from None

    def _written(self, data: Any) -> int:
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # somebody else made the terminal or the pipe non-blocking
                import select

                select.select([], [self._descriptor], [])


def guard() -> None:
    """Put the guarded streams in the place of the process's own; what a test or a pager put there stays.

    Descriptors that the caller closed are opened on /dev/null, so that no socket takes their number.
    """
    closed = [_keep_open(descriptor) for descriptor in (0, 1, 2)]
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 - for as long as the process lives
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(1, sys.stdout, closed=closed[1], required=True)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(2, sys.stderr, closed=closed[2], required=False)


def _keep_open(descriptor: int) -> bool:
    """Whether it was closed."""
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)
        return True
    return False


def _stream(descriptor: int, before: Any, *, closed: bool, required: bool) -> io.TextIOWrapper:
    raw = _Raw(descriptor, closed=closed or before is None, required=required)
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffered,
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",  # no encoding may break a command
        line_buffering=raw.isatty() or not required,
    )
