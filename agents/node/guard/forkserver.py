"""The fork server: the process that this node's guards are forked from.

An interpreter of its own would cost each guard 25 ms of a core, which is more than all else that starting
one takes; a short job would notice. The fork server has loaded what a guard needs and waits. It is a child
of the agent and ends with it; the guards are forked away from it twice, and nobody's children.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from agents.node.guard import records

GUARD = Path(__file__).with_name("guard.py")
START_TIMEOUT = 30.0
"""Seconds to wait for the ranks to be started: on a healthy node it takes hundredths of one."""
_END_TIMEOUT = 5.0


class ForkServer:
    """Starts guards. Any thread may call it; a fork server that has died is replaced when it is needed.

    Args:
        environ: the environment of the guards.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def start(self) -> None:
        """Have it ready before the first guard is wanted. Raises OSError."""
        with self._lock:
            self._running()

    def spawn(self, folder: Path) -> None:
        """Start the guard of a folder; returns when its ranks run, or when none will. Blocking.

        What came of it is on disk: a guard that finds another one, or `started`, does nothing. A guard
        that could not be started at all leaves no trace there, and raises OSError.
        """
        # No word is what a guard says that found another one, or a fork server that was just being killed.
        # To ask again changes nothing in the first case.
        if not self._spawn(folder):
            self._spawn(folder)

    def _spawn(self, folder: Path) -> bytes:
        ready, told = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                with (folder / records.LOG).open("ab") as log:
                    self._ask(os.fsencode(folder), [told, log.fileno()])
            finally:
                os.close(told)
            answer = select.poll()  # not select: an agent may have more than 1024 descriptors
            answer.register(ready, select.POLLIN)
            if not answer.poll(START_TIMEOUT * 1000):
                raise TimeoutError("the guard's ranks have not started in time")
            words = os.read(ready, 16)
        finally:
            os.close(ready)
        if words.startswith(b"!"):
            number = int(words[1:])
            raise OSError(number, os.strerror(number))
        return words

    def _ask(self, folder: bytes, descriptors: list[int]) -> None:
        with self._lock:
            try:
                socket.send_fds(self._running(), [folder], descriptors)
            except ConnectionError:  # it was killed, and nobody has noticed yet
                self._end()
                socket.send_fds(self._running(), [folder], descriptors)

    def _running(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._requests is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                with theirs:
                    self._process = subprocess.Popen(
                        # -S: the environment's .pth files are none of its business, and cost 20 ms.
                        [sys.executable, "-I", "-S", str(GUARD), str(theirs.fileno())],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        env=self._environ,
                        pass_fds=[theirs.fileno()],
                        start_new_session=True,
                    )
            except BaseException:
                ours.close()
                raise
            self._requests = ours
        return self._requests

    def _end(self) -> None:
        if self._requests is not None:
            self._requests.close()
        if self._process is not None:
            try:
                self._process.wait(_END_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = self._requests = None

    def close(self) -> None:
        """End it; its guards go on. Blocking, for milliseconds."""
        with self._lock:
            self._end()
