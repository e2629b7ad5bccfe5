"""The client of the HTTP API: JSON over a unix socket, standard library only.

Every call opens its own connection, so one `Client` may be used from many threads. Any call may
raise an error of `jobs.base.errors`: what the controller answered, or `Unreachable` when it did not.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from console import guest
from console.dial import dial
from jobs.base.errors import (
    BY_CODE,
    InvalidInput,
    NotAllowed,
    NotFound,
    QuarterdeckError,
    Unreachable,
    from_json,
)
from jobs.base.numbers import loads
from jobs.base.places import SYSTEM, Places, last_words, places
from jobs.wire.version import HEADER, compare, differ

if TYPE_CHECKING:
    from console.remote.link import Link
    from console.remote.target import Target

_READ = 65536
_PIECE = 1 << 16
"""Bytes copied at a time. They stay in the processor's cache; by the megabyte a copy takes twice as long,
and the kernel looks for whole megabytes of free memory for the file that they are written to."""


class Cut(Unreachable):
    """The connection broke during a call: what it asked for may or may not have happened."""


class NotStarted(Unreachable):
    """There is no controller, and the last one that tried said why: `why`."""

    def __init__(self, why: QuarterdeckError) -> None:
        super().__init__(f"the controller does not start: {why.message}", why.hint)
        self.why = why


class Late(Cut):
    """The call was sent, and no answer came in time: it may yet happen."""


def socket_here(own: Places) -> Path:
    """The API's socket on this machine: the caller's own, or the service's where they have none.

    A guest has the session's, also when it is gone: on the service's they would be the gateway's user.
    """
    if (
        guest.folder() is None
        and own != SYSTEM
        and not own.socket.exists()
        and SYSTEM.socket.exists()
    ):
        return SYSTEM.socket
    return own.socket


class Headers(Mapping[str, str]):
    """Headers of a reply; names in any case."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values = {name.lower(): value for name, value in pairs}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Client:
    """Calls to one control plane.

    Args:
        socket: path of the controller's unix socket.
        timeout: seconds that the socket may stay silent before a call raises Unreachable.
        link: the way to a control plane on another host, whose carrier has that socket.
        clock: seconds, monotonic; `sleep` waits that many. Only `act` uses them.
    """

    def __init__(
        self,
        socket: Path,
        timeout: float = 10.0,
        *,
        link: Link | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.socket = socket
        self.timeout = timeout
        self.link = link
        self.clock = clock
        self.sleep = sleep

    @classmethod
    def from_environment(
        cls,
        timeout: float = 10.0,
        environ: Mapping[str, str] | None = None,
        *,
        patience: float | None = None,
    ) -> Client:
        """The control plane that the environment names: that of this machine (see `jobs.base.places`), or one
        that is reached by SSH (`console.remote.contexts`), for which `patience` is the seconds that it
        may take to connect."""
        from console.remote.contexts import chosen

        target = chosen(environ)
        if target is None:
            return cls(socket_here(places(environ)), timeout)
        from console.remote.link import PATIENCE, Link

        link = Link(target, PATIENCE if patience is None else patience, environ)
        return cls(link.carrier, timeout, link=link)

    @property
    def remote(self) -> Target | None:
        """The host on which the control plane is; None when it is this one."""
        return None if self.link is None else self.link.target

    def with_timeout(self, timeout: float) -> Client:
        """The same control plane with another patience, in seconds."""
        return Client(self.socket, timeout, link=self.link, clock=self.clock, sleep=self.sleep)

    def get(self, path: str, **query: Any) -> Any:
        """The JSON document at `path`. A query value of None is left out; a list repeats."""
        return _document(self._exchange("GET", path, query))

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """Send `body` as JSON and return the JSON answer. Tried once; see `act`."""
        data = json.dumps({} if body is None else body).encode()
        return _document(self._exchange("POST", path, query, data))

    def act(
        self,
        path: str,
        body: Any = None,
        *,
        patience: float = 20.0,
        late: Callable[[], None] | None = None,
        **query: Any,
    ) -> Any:
        """`post` for a call that is idempotent: when the connection breaks under it, or no answer comes
        in time, it is sent again until it is answered or `patience` seconds have passed.

        A control plane that is not there at the first try is not waited for.

        Args:
            late: called once, when the first answer is overdue.

        Raises:
            Cut: it was sent, and it is not known whether it happened.
        """
        deadline = self.clock() + patience
        sent: Cut | None = None
        while True:
            try:
                return self.post(path, body, **query)
            except Unreachable as error:
                if isinstance(error, Late) and late is not None:
                    late()
                    late = None
                sent = error if isinstance(error, Cut) else sent
                if sent is None:
                    raise
                if self.clock() >= deadline:
                    raise sent from None
                self.sleep(0.25)

    def upload(self, path: str, chunks: Iterable[bytes], content_type: str, **query: Any) -> Any:
        """POST a body of unknown size, sent as it is made, and return the JSON answer."""
        return _document(self._exchange("POST", path, query, chunks, content_type))

    def raw(self, path: str, **query: Any) -> tuple[bytes, Mapping[str, str]]:
        """The bytes at `path`, and the headers that came with them."""
        return self._exchange("GET", path, query)

    def copy(self, path: str, sink: Callable[[bytes], None], **query: Any) -> None:
        """Give the bytes at `path` to `sink`, a piece at a time as they come; no piece is empty.

        Raises as every call, also after `sink` was given some: those bytes were right.
        """
        connection = self._connect()
        try:
            held = connection.sock
            with self._request(connection, "GET", path, query) as response:
                if response.status >= 400:
                    raise _refusal(response, response.read())
                held.settimeout(None)  # a log may be silent for hours
                while data := response.read1(_PIECE):
                    sink(data)
                if response.length:
                    raise _cut()
        except OSError as error:
            raise self._failure(error) from error
        except http.client.HTTPException as error:
            raise _cut() from error
        finally:
            connection.close()

    def stream(
        self, path: str, *, idle_timeout: float | None = None, body: Any = None, **query: Any
    ) -> Stream:
        """The NDJSON documents at `path`, as they come. Close it, or use it in a `with`.

        Args:
            body: what to send as JSON, with POST; None: it is a GET.
            idle_timeout: seconds of silence after which the stream counts as cut; None: never.
        """
        connection = self._connect()
        try:
            held = connection.sock
            data = None if body is None else json.dumps(body).encode()
            method = "GET" if body is None else "POST"
            response = self._request(connection, method, path, query, data)
            if response.status >= 400:
                raise _refusal(response, response.read())
            held.settimeout(idle_timeout)
        except OSError as error:
            connection.close()
            raise self._failure(error) from error
        except http.client.HTTPException as error:
            connection.close()
            raise _cut() from error
        except BaseException:
            connection.close()
            raise
        return Stream(connection, held, response)

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", timeout=self.timeout)
        try:
            if self.link is None:
                connection.sock = dial(self.socket, self.timeout)
            else:
                connection.sock = self.link.connect(self.timeout)
        except OSError as error:
            raise self._failure(error, Unreachable) from error
        return connection

    def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: bytes | Iterable[bytes] | None = None,
        content_type: str = "application/json",
    ) -> tuple[bytes, Headers]:
        connection = self._connect()
        try:
            with self._request(connection, method, path, query, body, content_type) as response:
                data = response.read()
                if response.status >= 400:
                    raise _refusal(response, data)
                return data, Headers(response.getheaders())
        except OSError as error:
            raise self._failure(error) from error
        except http.client.HTTPException as error:
            raise _cut() from error
        finally:
            connection.close()

    def _request(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: bytes | Iterable[bytes] | None = None,
        content_type: str = "application/json",
    ) -> http.client.HTTPResponse:
        headers = {"Connection": "close"}
        if body is not None:
            headers["Content-Type"] = content_type
        # A server that refuses a large body may answer and close before it has read all of it: its
        # answer tells more than the broken pipe.
        with suppress(BrokenPipeError):
            connection.request(method, path + _query(query), body, headers, encode_chunked=True)
        response = connection.getresponse()
        compare(response.getheader(HEADER))
        return response

    def _failure(self, error: OSError, kind: type[Unreachable] = Late) -> QuarterdeckError:
        """What a failed system call means to a person; `kind` when it took too long."""
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return _why_not(self.socket)
        if isinstance(error, PermissionError):
            return NotAllowed(
                f"no permission to use the socket {self.socket}",
                "Ask the owner of the control plane to add you to its group.",
            )
        if isinstance(error, TimeoutError | BlockingIOError):
            return kind(
                f"the control plane did not answer within {self.timeout:g} s",
                "See what is wrong with `qd doctor`.",
            )
        return _cut()


class Stream(Iterator[dict[str, Any]]):
    """NDJSON documents as they arrive. Ends when the controller ended the reply in good order.

    `next` raises Unreachable when the connection was cut before that, so a reader never takes half
    a stream for a whole one; it raises the error with which the controller ended a stream. `close`
    may be called from another thread, and ends the iteration.
    """

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        held: socket.socket,
        response: http.client.HTTPResponse,
    ) -> None:
        self._connection = connection
        self._socket = held
        self._response = response
        self._lines: list[bytes] = []  # whole lines not yet given out, newest first
        self._rest = b""
        self._closed = False

    def __next__(self) -> dict[str, Any]:
        while True:
            while self._lines:
                line = self._lines.pop()
                if line.strip():
                    return self._parse(line)
            if self._closed:
                raise StopIteration
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._response.read1(_READ)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # ValueError and AttributeError: `close` took the file away under the read.
            if self._closed:
                return
            self.close()
            raise _cut() from error
        if data:
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines = lines[::-1]
            return
        if self._closed:
            return
        whole = self._response.chunked or self._response.length == 0
        self.close()
        if not whole:
            raise _cut()
        self._lines, self._rest = [self._rest], b""

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            document = loads(line)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            self.close()
            raise QuarterdeckError("the control plane sent a line that is not a JSON object")
        if isinstance(document.get("error"), dict):
            self.close()
            raise from_json(document)
        return document

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):  # wakes a reader that is blocked in another thread
            self._socket.shutdown(socket.SHUT_RDWR)
        self._response.close()
        self._connection.close()
        self._socket.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="")


def _query(query: Mapping[str, Any]) -> str:
    given = {
        name: int(value) if isinstance(value, bool) else value
        for name, value in query.items()
        if value is not None
    }
    return "?" + urlencode(given, doseq=True) if given else ""


def _document(reply: tuple[bytes, Mapping[str, str]]) -> Any:
    try:
        return loads(reply[0])
    except ValueError as error:
        raise QuarterdeckError("the control plane gave an answer that is not JSON") from error


def _refusal(response: http.client.HTTPResponse, data: bytes) -> QuarterdeckError:
    status = response.status
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("error"), dict):
        kinds = (cls for cls in BY_CODE.values() if cls.http_status == status)
        kind = next(kinds, QuarterdeckError)
        return kind(f"the control plane answered with HTTP status {status}")
    error = from_json(body)
    if isinstance(
        error, InvalidInput | NotFound
    ):  # as a field or a route that only one of them knows
        error.hint = " ".join(filter(None, (error.hint, differ(response.getheader(HEADER)))))
    return error


def _why_not(socket: Path) -> Unreachable:
    """Why nobody listens there: what a controller said that could not start, or that there is none."""
    try:
        failed = from_json(json.loads(last_words(socket).read_text()))
    except (OSError, ValueError, AttributeError, TypeError):
        return Unreachable("the control plane is not running", "Start it with `qd up`.")
    return NotStarted(failed)


def _cut() -> Cut:
    return Cut(
        "the connection to the control plane was cut",
        "Jobs run on without it. `qd status` tells whether it is back.",
    )
