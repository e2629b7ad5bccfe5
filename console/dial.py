"""Connecting to a unix socket."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

_LONGEST_PATH = 107  # bytes that the kernel allows in the path of a unix socket


def dial(path: Path, timeout: float) -> socket.socket:
    """Connect to a unix socket, also one whose path is longer than the kernel takes.

    Args:
        timeout: seconds for this, and for each later call on the socket. Raises OSError.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Blocking, with the kernel's own timeout: a connect that does not block fails at once while
        # the queue of a busy controller is full.
        whole, part = divmod(timeout, 1)
        limit = struct.pack("ll", int(whole), int(part * 1e6))
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        if len(os.fsencode(path)) <= _LONGEST_PATH:
            connected.connect(str(path))
        else:
            folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                connected.connect(f"/proc/self/fd/{folder}/{path.name}")
            finally:
                os.close(folder)
        connected.settimeout(timeout)
    except BaseException:
        connected.close()
        raise
    return connected
