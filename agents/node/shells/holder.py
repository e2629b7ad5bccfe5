"""The holder: keeps one program beside a rank, whoever comes and goes.

    python -I -S holder.py    (what to run comes as JSON on standard input, for it may hold secrets)

It is nobody's child, so neither the agent's end nor a cut connection touches the program; it ends with the
rank, and so does the program. Standard library only. It answers on a unix socket in the attempt's folder,
one request a connection: `REQUEST` and its payload, then `REPLY` and its payload.

Output is kept as records: stream (1 or 2), length, bytes; offsets count bytes of records. A reader that
asks from an offset has all before it. While somebody reads, the program waits for a reader that is slow;
a program that is kept (`attach`) goes on without one, and has its newest output.
"""

# ruff: noqa: PTH108, PTH121, PTH123

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import sys
import termios
import time
import warnings  # noqa: F401 - for os.execvpe, which could not find it in a container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

REQUEST = struct.Struct("!cqId")
"""What to do, a number, bytes of payload, and seconds to wait for output."""
REPLY = struct.Struct("!q?iI")
"""Offset behind what is given, whether the program has ended, its exit code, and bytes of payload."""
RECORD = struct.Struct("!BI")

READ, WRITE, END, SIZE, SIGNAL = b"r", b"w", b"e", b"s", b"k"

HISTORY = 64 << 10
"""Bytes of output that are there for somebody who comes back."""
AHEAD = 256 << 10
"""Bytes that a reader may be behind before the program has to wait."""
LEFT = 12.0
"""Seconds without a reader after which nobody reads any more; readers ask every few seconds."""
AGAIN = 2.0
"""Seconds for which an exit code that was given is given again, to somebody whose connection was cut."""
_PIECE = 1 << 15
_GRACE = 1.0
_PR_SET_PDEATHSIG = 1


class Holder:
    """Runs in the attempt's folder."""

    def __init__(self, spec: dict[str, Any], listening: socket.socket) -> None:
        self.spec, self.listening = spec, listening
        self.keep = bool(spec["keep"])
        self.records: list[tuple[int, bytes]] = []  # offset of each record
        self.end = 0
        self.read_to, self.read_at = 0, time.monotonic()
        self.waiting: list[tuple[float, int, socket.socket]] = []
        self.input = bytearray()
        self.code: int | None = None
        self.hung_up: float | None = None
        self.rank = os.pidfd_open(spec["pid"])
        self.sources: dict[int, int] = {}  # descriptor -> stream
        self._start()

    def _start(self) -> None:
        """Start the program. Raises OSError."""
        if self.spec["terminal"]:
            self.sink, theirs = pty.openpty()
            self.resize(self.spec["rows"], self.spec["columns"])
            ends = (theirs, theirs, theirs)
            self.sources = {self.sink: 1}
        else:
            (stdin, self.sink), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()
            ends = (stdin, stdout, stderr)
            self.sources = {out: 1, err: 2}
        self.pid = os.fork()
        if self.pid == 0:
            _become(self.spec, ends)
        for end in set(ends):
            os.close(end)
        os.set_blocking(self.sink, False)
        self.child = os.pidfd_open(self.pid)

    def resize(self, rows: int, columns: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.sink, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def run(self) -> None:
        while not self._over():
            now = time.monotonic()
            reading = self.read_at + LEFT > now
            if not reading and not self.keep:
                self._hang_up(now)
            readers = [self.listening.fileno()]
            if not (reading and self.end - self.read_to > AHEAD):
                readers += self.sources
            if self.code is None:
                readers += [self.child, self.rank]
            writers = [self.sink] if self.input and self.sink >= 0 else []
            pause = min([1.0, *(max(0.0, until - now) for until, _, _ in self.waiting)])
            ready, writable, _ = select.select(readers, writers, [], pause)
            if writable:
                self._feed()
            for descriptor in ready:
                if descriptor in self.sources:
                    self._take(descriptor)
                elif descriptor == self.listening.fileno():
                    self._serve(self.listening.accept()[0])
                elif descriptor == self.rank:
                    self._hang_up(time.monotonic())
            if self.code is None and self.child in ready:
                self._ended()
            self._answer()

    def _over(self) -> bool:
        if self.code is None or self.waiting:
            return False
        told = self.read_to >= self.end and not self.sources
        stay = 0.0 if told and self.keep else AGAIN if told else LEFT
        return self.read_at + stay < time.monotonic()

    def _ended(self) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.code = status if status >= 0 else 128 - status
        for descriptor in list(
            self.sources
        ):  # what it wrote is there; what it left behind is not waited for
            os.set_blocking(descriptor, False)
            while descriptor in self.sources and self._take(descriptor):
                pass
            self._drop(descriptor)

    def _hang_up(self, now: float) -> None:
        if self.code is not None:
            return
        if self.hung_up is None:
            self.hung_up = now
        number = signal.SIGKILL if now - self.hung_up > _GRACE else signal.SIGHUP
        with contextlib.suppress(OSError):
            os.killpg(self.pid, number)
        time.sleep(0.05)  # the descriptor that brought us here stays readable

    def _take(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, _PIECE)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        if not data:
            self._drop(descriptor)
            return False
        record = RECORD.pack(self.sources[descriptor], len(data)) + data
        self.records.append((self.end, record))
        self.end += len(record)
        floor = self.end - HISTORY if self.keep else self.read_to
        while self.records and self.records[0][0] + len(self.records[0][1]) <= floor:
            if self.read_at + LEFT > time.monotonic() and self.records[0][0] >= self.read_to:
                break  # somebody is about to read it
            self.records.pop(0)
        return True

    def _drop(self, descriptor: int) -> None:
        if self.sources.pop(descriptor, None) is not None and descriptor != self.sink:
            os.close(descriptor)

    def _feed(self) -> None:
        try:
            del self.input[: os.write(self.sink, self.input[:_PIECE])]
        except BlockingIOError:
            return
        except OSError:
            self.input.clear()
        if self.ending and not self.input:
            self._close_input()

    ending = False

    def _close_input(self) -> None:
        if self.spec["terminal"]:
            return
        with contextlib.suppress(OSError):
            os.close(self.sink)
        self.sink = -1

    def _serve(self, client: socket.socket) -> None:
        """One request. Its client is our own agent, which sends it whole."""
        client.settimeout(5)
        try:
            kind, number, length, wait = REQUEST.unpack(_exactly(client, REQUEST.size))
            payload = _exactly(client, length)
        except (OSError, struct.error):
            client.close()
            return
        if kind == READ:
            self.read_to, self.read_at = max(number, 0), time.monotonic()
            self.waiting.append((time.monotonic() + wait, max(number, 0), client))
            return
        if kind == WRITE and self.sink >= 0:
            self.input += payload
        elif kind == END:
            self.ending = True
            if not self.input:
                self._close_input()
        elif kind == SIZE:
            self.resize(number >> 16, number & 0xFFFF)
        elif kind == SIGNAL and self.code is None:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, number)
        self._reply(client, len(self.input), b"")

    def _answer(self) -> None:
        """Answer those readers for whom there is something, or who have waited long enough."""
        now, left = time.monotonic(), []
        for until, offset, client in self.waiting:
            if offset < self.end or self.code is not None or now >= until:
                found = [record for at, record in self.records if at >= offset]
                first = next((at for at, _ in self.records if at >= offset), self.end)
                data, size = [], 0
                for record in found:
                    if size and size + len(record) > AHEAD:
                        break
                    data.append(record)
                    size += len(record)
                self.read_at = now
                self._reply(client, first + size, b"".join(data))
            else:
                left.append((until, offset, client))
        self.waiting = left

    def _reply(self, client: socket.socket, number: int, data: bytes) -> None:
        ended = self.code is not None and (not data or number >= self.end)
        with contextlib.suppress(OSError):
            client.sendall(REPLY.pack(number, ended, self.code or 0, len(data)) + data)
        if ended:
            self.read_to = number
        client.close()


def _exactly(client: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = client.recv(length - len(data))
        if not piece:
            raise OSError("it was cut")
        data += piece
    return bytes(data)


def _become(spec: dict[str, Any], ends: tuple[int, int, int]) -> NoReturn:
    """In the child: be the program."""
    try:
        os.setsid()
        if spec["terminal"]:
            fcntl.ioctl(ends[0], termios.TIOCSCTTY, 0)
        for number, end in enumerate(ends):
            os.dup2(end, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        _become_user(spec.get("as"), terminal=spec["terminal"])
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        if spec["inside"]:
            _enter(spec["pid"])
        os.chdir(spec["work"])
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606
    except OSError as error:
        os.write(2, f"quarterdeck: {spec['argv'][0]}: {error.strerror}\n".encode())
    os._exit(127)


def _become_user(who: dict[str, Any] | None, *, terminal: bool) -> None:
    """As `guard/rights.py`, of which this program knows nothing. Raises OSError."""
    if who is None:
        return
    if terminal:
        os.fchown(0, who["uid"], -1)
    os.setgroups(who["groups"])
    os.setresgid(who["gid"], who["gid"], who["gid"])
    os.setresuid(who["uid"], who["uid"], who["uid"])


def _enter(pid: int) -> None:
    """See the files that a rank in a container sees, as the user that it is there. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    entered = []
    for kind in ("user", "mnt"):
        path = f"/proc/{pid}/ns/{kind}"
        if os.path.samefile(path, f"/proc/self/ns/{kind}"):
            continue  # the kernel refuses to enter one's own
        entered.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    for namespace in entered:
        if libc.setns(namespace, 0):
            raise OSError(ctypes.get_errno(), "the rank's container cannot be entered")


def main() -> int:
    """Say `ok` on standard output once the program runs, or what is wrong."""
    # Under uvloop, which Ray gives its actors, a child inherits descriptors: among them the other end of
    # this standard output, which the agent reads until nobody has it open.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    spec = json.load(sys.stdin)
    try:
        os.chdir(spec["folder"])
        with contextlib.suppress(FileNotFoundError):
            os.unlink(spec["socket"])
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.umask(0o077)
        listening.bind(spec["socket"])
        listening.listen(16)
        if os.fork():
            os._exit(0)
        os.setsid()
        if spec["cgroup"]:  # its children are born there
            with contextlib.suppress(OSError), open(f"{spec['cgroup']}/cgroup.procs", "w") as file:
                file.write("0")
        os.umask(0o022)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        holder = Holder(spec, listening)
    except OSError as error:
        os.write(1, f"{error.strerror}\n".encode())
        return 1
    os.write(1, b"ok\n")
    nothing = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    try:
        holder.run()
    finally:
        os.unlink(spec["socket"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
