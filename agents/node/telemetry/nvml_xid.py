"""Xid errors: what the driver writes into the kernel log when a GPU or a program on it went wrong.

Events wait in the driver until they are fetched, so a look in each sample loses none and needs no thread.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable, Iterator
from typing import Any

import pynvml

from jobs.placement.nodehealth import FATAL_XIDS

AT_ONCE = 64  # events taken in one look, so that a GPU in an error storm cannot hold the sampler


class XidWatch:
    """An NVML event set for those handles that support Xid events."""

    def __init__(self, handles: Iterable[Any]) -> None:
        self._events: Any | None = None
        try:
            self._events = pynvml.nvmlEventSetCreate()
        except pynvml.NVMLError:
            return  # not on this platform
        registered = sum(self._register(handle) for handle in handles)
        if not registered:
            self.close()

    def _register(self, handle: Any) -> bool:
        kind = pynvml.nvmlEventTypeXidCriticalError
        try:
            if not pynvml.nvmlDeviceGetSupportedEventTypes(handle) & kind:
                return False
            pynvml.nvmlDeviceRegisterEvents(handle, kind, self._events)
        except pynvml.NVMLError:
            return False  # not permitted, or this GPU is lost
        return True

    def poll(self) -> Iterator[tuple[int, int]]:
        """(address of the GPU's handle, Xid) of each event since the last look, without waiting."""
        for _ in range(AT_ONCE if self._events is not None else 0):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
            except pynvml.NVMLError as error:
                # A lost GPU fails the whole set. It is made anew when the driver is asked anew.
                if error.value != pynvml.NVML_ERROR_TIMEOUT:
                    self.close()
                return
            yield address(event.device), int(event.eventData)

    def close(self) -> None:
        if self._events is not None:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(self._events)
            self._events = None


def graver(known: int | None, new: int) -> int:
    """The Xid to remember: the new one, unless it would hide a fatal one. A GPU that fails is followed
    by an Xid for each program that it takes down."""
    return known if known in FATAL_XIDS and new not in FATAL_XIDS else new


def address(handle: Any) -> int:
    """What tells one handle from another: ctypes pointers to the same thing do not compare equal."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
