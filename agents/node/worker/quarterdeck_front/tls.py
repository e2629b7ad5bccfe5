"""Certificates of services: read from the node's files, checked, and handed to HAProxy in memory.

    {"name": "d3", "tls": {"cert": "/etc/ssl/digits.pem", "key": "/etc/ssl/digits.key"}}

A pair that does not fit, as while it is being renewed, changes nothing: the one before goes on. The private
key is nowhere on disk but in its own file: HAProxy reads both from a memory file that it inherits.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOOK_EVERY = 0.5
"""Seconds between two looks at the files."""
_LARGEST = 1 << 20
"""Bytes of a file with certificates or a key."""
_END = "-----END CERTIFICATE-----"


class Unusable(Exception):
    """Why a pair cannot be used, in words that quote nothing of it."""


@dataclass
class Certificate:
    """Of one service. `fd` is a memory file with chain and key, -1 before there was a good pair."""

    cert: str
    key: str
    fd: int = -1
    sha256: str = ""  # of the first certificate, as a client sees it
    error: str = ""
    _seen: Any = None

    def look(self) -> None:
        """Take up the pair, if the files have changed and fit."""
        try:
            seen = [
                (s.st_mtime_ns, s.st_size, s.st_ino) for s in map(os.stat, (self.cert, self.key))
            ]
            if seen == self._seen and not self.error:
                return
            self._take(_read(self.cert), _read(self.key))
            self._seen, self.error = seen, ""
        except OSError as error:
            self.error = f"{error.filename}: {error.strerror}"
        except Unusable as error:
            self.error = str(error)

    def _take(self, cert: bytes, key: bytes) -> None:
        try:
            first = cert.decode().partition(_END)[0].rpartition("-----BEGIN")[1:]
            sha256 = hashlib.sha256(ssl.PEM_cert_to_DER_cert("".join(first) + _END)).hexdigest()
        except ValueError:
            raise Unusable(f"{self.cert} is no certificate in PEM") from None
        fd = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            for part in (cert, b"\n", key):
                os.write(fd, part)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(path_of(fd), password=_none)
        except (ssl.SSLError, ValueError):
            os.close(fd)
            raise Unusable(
                f"{self.key} is not the private key of {self.cert}, in PEM and open"
            ) from None
        self.close()
        self.fd, self.sha256 = fd, sha256

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


def path_of(fd: int) -> str:
    """Under which a process that has inherited it reads it."""
    return f"/proc/self/fd/{fd}"


def _none() -> str:
    raise ValueError("a key behind a passphrase")  # or OpenSSL asks the terminal


def _read(path: str) -> bytes:
    with Path(path).open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise Unusable(f"{path} is larger than {_LARGEST >> 20} MiB")
    return data


@dataclass
class Certificates:
    """Those of all services that have one, by the service's name."""

    of: dict[str, Certificate] = field(default_factory=dict)
    _looked: float = 0.0

    def want(self, services: list[dict[str, Any]]) -> None:
        """Have those that are asked for, and look at their files from time to time."""
        asked = {s["name"]: s["tls"] for s in services if s.get("tls")}
        for name in [name for name in self.of if name not in asked]:
            self.of.pop(name).close()
        new = False
        for name, files in asked.items():
            known = self.of.get(name)
            if known is None or (known.cert, known.key) != (files["cert"], files["key"]):
                made = Certificate(files["cert"], files["key"])
                if known is not None:  # it goes on until the new one is good
                    made.fd, made.sha256 = known.fd, known.sha256
                self.of[name] = made
                new = True
        if new or time.monotonic() > self._looked + LOOK_EVERY:
            self._looked = time.monotonic()
            for certificate in self.of.values():
                certificate.look()

    def usable(self) -> dict[str, Certificate]:
        return {name: one for name, one in self.of.items() if one.fd >= 0}


def ends_at(told: str) -> float | None:
    """When a certificate ends, in unix time, from what `show ssl cert` says of it."""
    for line in told.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "notafter":
            try:
                return float(ssl.cert_time_to_seconds(value.strip()))
            except ValueError:
                return None
    return None
