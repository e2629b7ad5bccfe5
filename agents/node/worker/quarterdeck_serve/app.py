"""The server as an ASGI application: routes, limits, errors in the protocol's form."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from . import oip
from .inferlog import Options, Recorder, request_id
from .meters import Meters
from .mirror import HEADER, TOOK, Copy, Mirror
from .oip import Array, BadRequest, TensorSpec

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

INLINE = 0.001
"""Seconds that a run may usually take and still be done on the event loop: a thread costs a tenth of that,
and meanwhile nobody else is answered."""
_JSON = [(b"content-type", b"application/json")]


class Runnable(Protocol):
    platform: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> list[Array]: ...


@dataclass(frozen=True)
class Limits:
    """Bytes of a body, seconds for it to arrive, requests at the same time."""

    body: int = 16 << 20
    patience: float = 30.0
    running: int = 128


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, list(headers)


class Application:
    """Answers for one model version.

    `draining`: it says that it is not ready, and answers all the same, until it ends.
    """

    def __init__(
        self,
        model: Runnable,
        name: str,
        version: str,
        limits: Limits,
        *,
        allow_nan: bool = False,
        recorder: Recorder | None = None,
        mirror: Mirror | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model, self._name, self._version = model, name, version
        self._limits, self._allow_nan, self._clock = limits, allow_nan, clock
        self.meters = Meters(name, version)
        self._recorder = recorder or Recorder(Options(), Path(), version)
        self._mirror = mirror or Mirror(None, None, "")
        self.draining = False
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="model")
        self._usual = 0.0  # seconds of a run, smoothed
        base = f"/v2/models/{name}"
        self._bases = (base, f"{base}/versions/{version}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        for base in self._bases:
            if path == f"{base}/infer":
                await self._answer_infer(scope, receive, send, method)
                return
        try:
            status, headers, body = self._told(path, method)
        except Refused as error:
            status, headers, body = _error(error)
        await _send(send, status, headers, body)

    def _told(self, path: str, method: str) -> tuple[int, Headers, bytes]:
        """Everything but inference."""
        if path == "/metrics":
            return (
                200,
                [(b"content-type", b"text/plain; version=0.0.4")],
                (self.meters.text() + self._recorder.text(self.meters.labels)).encode(),
            )
        if path == "/v2/health/live":
            return 200, _JSON, b'{"live":true}'
        if path == "/v2/health/ready" or path in [f"{base}/ready" for base in self._bases]:
            ready = not self.draining
            return (200 if ready else 503), _JSON, json.dumps({"ready": ready}).encode()
        if path == "/v2":
            extensions = ["binary_tensor_data"]
            about = {"name": "quarterdeck", "version": "1", "extensions": extensions}
            return 200, _JSON, json.dumps(about).encode()
        if path in self._bases:
            signature = {
                "name": self._name,
                "versions": [self._version],
                "platform": self._model.platform,
                "inputs": [spec.to_json() for spec in self._model.inputs],
                "outputs": [spec.to_json() for spec in self._model.outputs],
            }
            return 200, _JSON, json.dumps(signature).encode()
        if path.startswith("/v2/models/") and not path.startswith(f"{self._bases[0]}/"):
            raise Refused(404, f"here is model '{self._name}' version {self._version} alone")
        if path.startswith(f"{self._bases[0]}/versions/"):
            raise Refused(404, f"model '{self._name}' is version {self._version} here")
        raise Refused(404, f"there is no {method} {path[:200]}")

    # -- inference --------------------------------------------------------------------------------

    async def _answer_infer(self, scope: Scope, receive: Receive, send: Send, method: str) -> None:
        began, meters = self._clock(), self.meters
        asked = {name: value for name, value in scope["headers"] if name in _READ}
        named = request_id(asked.get(_REQUEST_ID))
        if meters.running >= self._limits.running:
            refused = Refused(503, "too many requests at the same time", (b"retry-after", b"1"))
            meters.answered(503, 0.0)
            await _send(send, *_error(refused), named)
            return
        meters.running += 1
        copy = self._mirror.chosen() if HEADER not in asked else None
        try:
            if method != "POST":
                raise Refused(405, "inference is a POST", (b"allow", b"POST"))
            status, headers, body, named = await self._infer(asked, receive, named, copy)
        except BadRequest as error:
            status, headers, body = _error(Refused(400, str(error)))
        except Refused as error:
            status, headers, body = _error(error)
        except Gone:
            return
        except Exception as error:
            # The model's own words may quote what it was sent: they go to the log, not to the caller.
            print(f"inference failed: {error!r}", flush=True)  # noqa: T201 - the replica's log
            status, headers, body = _error(Refused(500, "the model failed on this request"))
        finally:
            meters.running -= 1
        took = self._clock() - began
        meters.answered(status, took)
        named = named or self._recorder.new_id()
        if HEADER in asked:
            headers = [*headers, (TOOK, str(round(took * 1e6)).encode())]
        await _send(send, status, headers, body, named)
        if copy is not None:  # after the answer: nobody waits for it
            self._mirror.offer(copy, named, status, body, _head_of(headers), took)

    async def _infer(
        self,
        headers: dict[bytes, bytes],
        receive: Receive,
        named: str | None,
        copy: Copy | None,
    ) -> tuple[int, Headers, bytes, str]:
        """Status, headers, body, and the request's id: that of its header, else its own, else a new one."""
        body = _unpacked(await self._body(headers, receive), headers, self._limits.body)
        length = headers.get(oip.HEADER)
        if length is not None and not length.isdigit():
            raise Refused(400, "Inference-Header-Content-Length is no number")
        head = None if length is None else int(length)
        request = oip.parse(
            body,
            head,
            self._model.inputs,
            self._model.outputs,
            allow_nan=self._allow_nan,
        )
        if copy is not None:
            copy.body, copy.head = body, head
        names = list(request.outputs)
        arrays = await self._run(request.inputs, names)
        found = dict(zip(names, arrays, strict=True))
        told, answer = oip.reply(self._name, self._version, request, found)
        if named is None and request.id:
            named = request_id(request.id.encode())
        named = named or self._recorder.new_id()
        if HEADER not in headers:
            self._recorder.offer(named, body, head, answer, _head_of(told), request.inputs, found)
        return 200, told, answer, named

    async def _run(self, inputs: dict[str, Array], names: list[str]) -> list[Array]:
        began = self._clock()
        if self._usual <= INLINE:
            arrays = self._model.run(inputs, names)
        else:
            loop = asyncio.get_running_loop()
            arrays = await loop.run_in_executor(self._pool, self._model.run, inputs, names)
        self._usual += 0.1 * (self._clock() - began - self._usual)
        return arrays

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self._limits.body
        told = headers.get(b"content-length")
        if told is not None and told.isdigit() and int(told) > limit:
            raise _too_large(limit)
        message = await _within(receive(), self._limits.patience)
        if not message.get("more_body"):  # most requests come in one piece
            if message["type"] == "http.disconnect":
                raise Gone
            whole: bytes = message.get("body", b"")
            if len(whole) > limit:
                raise _too_large(limit)
            return whole
        parts, size = [], 0
        deadline = self._clock() + self._limits.patience
        while True:
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise _too_large(limit)
            if not message.get("more_body"):
                return b"".join(parts)
            message = await _within(receive(), deadline - self._clock())


class Gone(Exception):
    """The caller hung up."""


_REQUEST_ID = b"x-request-id"
_READ = frozenset({b"content-length", b"content-encoding", oip.HEADER, _REQUEST_ID, HEADER})


async def _within(
    message: Awaitable[MutableMapping[str, Any]], seconds: float
) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            return await message
    except TimeoutError:
        raise Refused(
            408, "the request took too long to arrive", (b"connection", b"close")
        ) from None


def _too_large(limit: int) -> Refused:
    return Refused(413, f"a request may have {limit} bytes", (b"connection", b"close"))


def _unpacked(body: bytes, headers: dict[bytes, bytes], limit: int) -> bytes:
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding == b"identity":
        return body
    if encoding not in (b"gzip", b"deflate"):
        raise Refused(415, "content-encoding: gzip, deflate or none")
    unpack = zlib.decompressobj(wbits=47)  # gzip and zlib, by what the data say
    try:
        data = unpack.decompress(body, limit + 1)
    except zlib.error:
        raise Refused(400, "the body is not what its content-encoding says") from None
    if len(data) > limit:
        raise _too_large(limit)
    if not unpack.eof:
        raise Refused(400, "the body is not what its content-encoding says")
    return data


def _head_of(headers: Headers) -> int | None:
    """Bytes of JSON in front of an answer; None where all of it is JSON."""
    return next((int(value) for name, value in headers if name == oip.HEADER), None)


def _error(error: Refused) -> tuple[int, Headers, bytes]:
    return error.status, [*_JSON, *error.headers], json.dumps({"error": error.text}).encode()


async def _send(
    send: Send, status: int, headers: Headers, body: bytes, named: str | None = None
) -> None:
    more = [(b"content-length", str(len(body)).encode())]
    if named is not None:
        more.append((_REQUEST_ID, named.encode()))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *more]})
    await send({"type": "http.response.body", "body": body})
