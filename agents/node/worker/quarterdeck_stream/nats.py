"""Records from a stream of NATS JetStream.

A position is the number that the broker gave to the last message that was read. At each start a consumer is
made that begins after it, so that messages come in their order, each once: what the broker believes to be
acknowledged does not matter, except that of a work queue it deletes what was committed.

The part of the protocol that this takes: https://docs.nats.io/reference/reference-protocols
"""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .folder import Read, of_json, parsed
from .settings import StreamError

PORT = 4222
BATCH = 256
"""Messages that are asked for at a time."""
EXPIRES = 30.0
"""Seconds after which the broker forgets what was asked for, and it is asked again."""
ANSWER = 5.0
"""Seconds for an answer of the broker."""
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before the next try to connect."""
UNUSED = 86_400.0
"""Seconds after which the broker deletes a consumer that nobody reads."""
_NANO = 1_000_000_000
_GONE = (OSError, EOFError)


class Message(NamedTuple):
    """`status`: what the broker says instead of a message, such as 404; empty for a message."""

    sid: str
    reply: str
    status: str
    data: bytes


class Connection:
    """One connection to a broker. Methods raise OSError or EOFError when it is gone, and StreamError when the
    broker refuses us."""

    def __init__(self, address: str, environ: Mapping[str, str]) -> None:
        url = urlsplit(address)
        host = url.hostname or ""
        self._socket = socket.create_connection((host, url.port or PORT), ANSWER)
        self._rest = b""
        try:
            info = self._info()
            if url.scheme == "tls" or info.get("tls_required"):
                context = ssl.create_default_context()
                self._socket = context.wrap_socket(self._socket, server_hostname=host)
            options: dict[str, Any] = {
                "verbose": False,
                "pedantic": False,
                "headers": True,
                "no_responders": True,
                "name": environ.get("QD_JOB", "quarterdeck"),
                "lang": "python",
                "version": "1",
                "protocol": 1,
            }
            given = (("user", "NATS_USER"), ("pass", "NATS_PASSWORD"), ("auth_token", "NATS_TOKEN"))
            for name, variable in given:
                if environ.get(variable):
                    options[name] = environ[variable]
            self.send(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
            self._ready = False
            until = time.monotonic() + ANSWER
            while not self._ready:
                if time.monotonic() > until:
                    raise TimeoutError("the broker does not answer")
                self.receive(ANSWER)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def publish(self, subject: str, data: bytes = b"", reply: str = "") -> None:
        words = f"PUB {subject} {reply} {len(data)}" if reply else f"PUB {subject} {len(data)}"
        self.send(words.encode() + b"\r\n" + data + b"\r\n")

    def receive(self, patience: float) -> list[Message]:
        """What has come, waiting up to so many seconds for something."""
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        if not pending and not select.select([self._socket], [], [], max(0.0, patience))[0]:
            return []
        data = self._socket.recv(1 << 18)
        if not data:
            raise EOFError("the broker closed the connection")
        self._rest += data
        return self._parsed()

    def _info(self) -> Any:
        while b"\r\n" not in self._rest:
            data = self._socket.recv(1 << 16)
            if not data:
                raise EOFError("the broker closed the connection")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\r\n")
        if not line.startswith(b"INFO "):
            raise StreamError(f"what answers there is no NATS: {line[:60]!r}")
        return json.loads(line[5:])

    def _parsed(self) -> list[Message]:
        found = []
        data, at = self._rest, 0
        while True:
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            line = data[at:end]
            word = line[:5].upper()
            if word.startswith((b"MSG ", b"HMSG ")):
                parts = line.split()
                size = int(parts[-1])
                if len(data) < end + 2 + size + 2:
                    break
                body = data[end + 2 : end + 2 + size]
                found.append(_message(parts, body))
                at = end + 2 + size + 2
                continue
            at = end + 2
            if word.startswith(b"PING"):
                self.send(b"PONG\r\n")
            elif word.startswith(b"PONG"):
                self._ready = True
            elif word.startswith(b"-ERR"):
                text = line[5:].decode("utf-8", "replace").strip(" '")
                if "stale" in text.lower() or "maximum" in text.lower():
                    raise EOFError(text)
                raise StreamError(f"the broker refuses: {text}")
        self._rest = data[at:]
        return found


def _message(parts: list[bytes], body: bytes) -> Message:
    headed = parts[0].upper() == b"HMSG"
    sizes = 2 if headed else 1
    reply = parts[3].decode() if len(parts) == 4 + sizes else ""
    status = ""
    if headed:
        size = int(parts[-2])
        first = body[:size].split(b"\r\n", 1)[0].split()
        status = first[1].decode() if len(first) > 1 else ""
        body = body[size:]
    return Message(parts[2].decode(), reply, status, body)


class Nats:
    """Args:
    settings: `nats`, the address; `stream`, its name; perhaps `subject`, of those that are read.
    commit: seconds between two commits.
    """

    def __init__(self, settings: Mapping[str, Any], commit: float) -> None:
        self._address, self._stream = settings["nats"], settings["stream"]
        self._subject = settings.get("subject")
        self._unacked = max(60.0, 4 * commit)
        self._name = f"quarterdeck-{os.environ.get('QD_JOB', 'x')}-{os.urandom(4).hex()}"
        self._inbox = f"_INBOX.{os.urandom(11).hex()}"
        self._connection: Connection | None = None
        self._next, self._tries = 0.0, 0
        self._last = 0  # the number of the last message that was given out
        self._done = 0  # the same, at the last commit
        self._created = ""
        self._queue = False  # the broker deletes what is acknowledged
        self._acks: list[str] = []  # of what was given out since the last commit
        self._buffer: deque[tuple[int, Message]] = deque()
        self._newest = 0  # the number of the last message in the buffer
        self._asked, self._until = 0, 0.0
        self._pending = -1  # that the broker has, and has not sent; -1: nobody knows
        self._told = ""

    def restore(self, position: Mapping[str, Any]) -> None:
        self._last = self._done = position["seq"]
        self._created = position["created"]
        self._name = position["consumer"]

    def position(self) -> dict[str, Any]:
        """Up to what was given out by `read`."""
        return {"seq": self._last, "created": self._created, "consumer": self._name}

    def read(self) -> Read | None:
        """The next record; None when there is none at present. Raises StreamError."""
        if not self._buffer and not self._pump(0.0):
            return None
        if not self._buffer:
            return None
        number, message = self._buffer.popleft()
        self._last = number
        if self._queue:
            self._acks.append(message.reply)
        return parsed(message.data, of_json, f"{self._stream}:{number}")

    def wait(self, seconds: float) -> None:
        """Until there may be something, or so many seconds are over."""
        seconds = min(seconds, 0.5)
        if self._connection is None:
            time.sleep(min(seconds, max(0.01, self._next - time.monotonic())))
            return
        self._pump(seconds)

    def over(self) -> bool:
        """Whether all that there is was read."""
        return self._connection is not None and not self._buffer and self._pending == 0

    def committed(self) -> None:
        """What was read is durable."""
        connection, acks, self._acks = self._connection, self._acks, []
        self._done = self._last
        if connection is None or not acks:
            return
        try:
            connection.send(b"".join(f"PUB {ack} 4\r\n+ACK\r\n".encode() for ack in acks))
        except _GONE as error:  # it sends them again, and they are known
            self._lost(error)

    def behind(self) -> int:
        """Messages that are there and not read, as far as is known."""
        return max(0, self._pending) + len(self._buffer)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- the broker ---------------------------------------------------------------------------------

    def _pump(self, patience: float) -> bool:
        """Take what has come, and ask for more; whether there is a connection."""
        try:
            if self._connection is None:
                if time.monotonic() < self._next:
                    return False
                self._connection = Connection(self._address, os.environ)
                self._begin(self._connection)
                self._tries, self._told = 0, ""
            connection, now = self._connection, time.monotonic()
            if not self._buffer and (self._asked <= 0 or now > self._until):
                more = {"batch": BATCH, "expires": int(EXPIRES * _NANO)}
                subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
                connection.publish(subject, json.dumps(more).encode(), f"{self._inbox}.m")
                self._asked, self._until = BATCH, now + EXPIRES + 1
            for message in connection.receive(patience):
                self._take(message)
        except _GONE as error:
            self._lost(error)
            return False
        return True

    def _take(self, message: Message) -> None:
        if message.sid != "1":
            return
        if message.status and message.status != "100" and not message.reply:
            self._asked = 0
            if message.status == "404":
                self._pending = 0
            if message.status in ("503", "409"):  # the consumer is gone, or JetStream is
                raise EOFError(f"the consumer is gone ({message.status})")
            return
        parts = message.reply.split(".")
        if len(parts) < 9 or parts[1] != "ACK":
            return
        numbers = parts[-5:] if len(parts) == 9 else parts[6:11]
        number, self._pending = int(numbers[1]), int(numbers[4])
        self._asked -= 1
        if self._queue and number <= self._done and self._connection is not None:
            self._connection.publish(message.reply, b"+ACK")  # it was killed before it said so
        if number > self._newest:  # and not one that comes again, since its commit takes long
            self._newest = number
            self._buffer.append((number, message))

    def _begin(self, connection: Connection) -> None:
        """A consumer that begins after the last message that was given out."""
        self._buffer.clear()
        self._acks, self._asked, self._pending = [], 0, -1
        connection.send(f"SUB {self._inbox}.m 1\r\nSUB {self._inbox}.a 2\r\n".encode())
        facts = self._request(connection, f"STREAM.INFO.{self._stream}", {})
        config, state = facts["config"], facts["state"]
        if config["retention"] == "interest":
            raise StreamError(
                f"stream {self._stream} keeps messages by interest, and cannot be read again from a"
                " commit; allowed: retention limits or workqueue"
            )
        if self._created and facts["created"] != self._created:
            _say(f"stream {self._stream} was made anew: it is read from its beginning")
            self._last = 0
        elif self._last > state["last_seq"]:
            _say(f"stream {self._stream} has lost messages that were read")
            self._last = state["last_seq"]
        self._created = facts["created"]
        self._queue = config["retention"] == "workqueue"
        lost = state["first_seq"] - self._last - 1
        if self._last and lost > 0 and not self._queue:
            _say(f"stream {self._stream} has deleted up to {lost} messages that were not read")
        self._newest = self._last
        self._consume(connection)

    def _consume(self, connection: Connection) -> None:
        name = f"{self._stream}.{self._name}"
        self._request(connection, f"CONSUMER.DELETE.{name}", None, missing=True)
        config: dict[str, Any] = {
            "durable_name": self._name,
            "deliver_policy": "all",
            "ack_policy": "explicit" if self._queue else "none",
            "inactive_threshold": int(UNUSED * _NANO),
        }
        if self._queue:
            config["ack_wait"] = int(self._unacked * _NANO)
            config["max_ack_pending"] = -1
        elif self._last:
            config["deliver_policy"] = "by_start_sequence"
            config["opt_start_seq"] = self._last + 1
        if self._subject:
            config["filter_subject"] = self._subject
        body = {"stream_name": self._stream, "config": config}
        made = self._request(connection, f"CONSUMER.DURABLE.CREATE.{name}", body)
        self._pending = made.get("num_pending", -1)

    def _request(
        self, connection: Connection, what: str, body: Any, *, missing: bool = False
    ) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        connection.publish(f"$JS.API.{what}", data, f"{self._inbox}.a")
        until = time.monotonic() + ANSWER
        while time.monotonic() < until:
            for message in connection.receive(until - time.monotonic()):
                if message.sid != "2":
                    continue
                if message.status == "503":
                    raise StreamError("the broker has no JetStream; start it with -js")
                answer = json.loads(message.data)
                error = answer.get("error")
                if error is None or (missing and error.get("code") == 404):
                    return answer
                raise StreamError(f"{what.rsplit('.', 1)[0]}: {error.get('description', error)}")
        raise TimeoutError("the broker does not answer")

    def _lost(self, error: BaseException) -> None:
        self.close()
        self._pending = -1
        pause = PAUSES[min(self._tries, len(PAUSES) - 1)]
        self._tries += 1
        self._next = time.monotonic() + pause
        text = f"{self._address}: {error}; trying again"
        if text != self._told:
            self._told = text
            _say(text)


def _say(text: str) -> None:
    sys.stderr.write(f"quarterdeck_stream: {text}\n")
    sys.stderr.flush()
