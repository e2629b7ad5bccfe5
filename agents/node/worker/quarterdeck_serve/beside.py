"""A program of ours beside the model server, with a socket to it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def start(
    program: str, task: Mapping[str, Any], buffer: int | None = None
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start one; the process, and our end of the socket, which never waits.

    Args:
        program: its file, next to this one.
        task: what it is told as JSON, with `descriptor`, its end of the socket.
        buffer: bytes that may wait for it.

    Raises OSError: there is no process, and nothing is left open.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if buffer is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        ours.setblocking(False)
        told = json.dumps({**task, "descriptor": its.fileno()})
        path = str(Path(__file__).with_name(program))
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", path, told],
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        its.close()
    return process, ours
