"""API keys of services: how one looks, what is kept of it, and how much it may ask. Pure.

A key has 256 random bits, so its plain digest is safe to store: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from jobs.base.errors import InvalidInput
from jobs.base.units import show

PREFIX = "qds_"
"""By which people and scanners of leaked secrets recognise one."""
MOST = 10_000
"""Keys of one service that are not revoked."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_PERIODS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60}
_RATE = re.compile(r"([0-9]{1,7})/([a-z]+)")


def digest_of(key: str) -> str:
    """What is stored of a key, and what the front compares."""
    return hashlib.sha256(key.encode()).hexdigest()


def check_name(name: str) -> str:
    """Raises InvalidInput for what cannot name a key."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"found {show(name)}; allowed as a key's name: letters, digits and ._@-, at most 63"
        )
    return name


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many requests in so many seconds, 1 or 60."""

    limit: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """`100/s` or `600/min`. Raises InvalidInput."""
        found = _RATE.fullmatch(text.strip())
        seconds = _PERIODS.get(found[2]) if found else None
        if found is None or seconds is None or int(found[1]) == 0:
            raise InvalidInput(f"found {show(text)}; allowed: a rate such as 100/s or 600/min")
        return cls(int(found[1]), seconds)

    def __str__(self) -> str:
        return f"{self.limit}/{'s' if self.seconds == 1 else 'min'}"


@dataclass(frozen=True, slots=True)
class Key:
    """One that opens a service."""

    id: int
    digest: str
    rate: Rate | None = None

    def to_json(self) -> dict[str, Any]:
        """As the front reads it."""
        if self.rate is None:
            return {"id": self.id}
        return {"id": self.id, "limit": self.rate.limit, "seconds": self.rate.seconds}


@dataclass(frozen=True, slots=True)
class Policy:
    """Whether a service asks for a key, and which ones it takes."""

    asks: bool = False
    keys: tuple[Key, ...] = ()

    def to_json(self) -> dict[str, Any]:
        keys = {key.digest: key.to_json() for key in self.keys} if self.asks else {}
        return {"keyed": self.asks, "keys": keys}
