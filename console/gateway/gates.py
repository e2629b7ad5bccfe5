"""How many may come, and how often they may try: what OpenSSH calls MaxStartups and MaxAuthTries, and more.

Counting only; times are passed in, in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

TRIES = 6
"""Keys that one connection may offer, as OpenSSH's MaxAuthTries."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Attributes:
    sessions: channels with a program, in all and of one key's line.
    unknown: connections that have not logged in yet, in all and from one address.
    failures: failed logins that an address may save up; one is forgiven each `forgiven` seconds.
    login: seconds for logging in.
    """

    sessions: int = 200
    sessions_each: int = 64
    unknown: int = 100
    unknown_each: int = 20
    failures: int = 20
    forgiven: float = 6.0
    login: float = 20.0


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


@dataclass
class Gates:
    """The counts of one gateway. A method that may refuse gives the reason in words, or nothing."""

    limits: Limits = field(default_factory=Limits)
    sessions: int = 0
    _each: Counter[str] = field(default_factory=Counter)
    _unknown: Counter[str] = field(default_factory=Counter)
    _failures: dict[str, _Bucket] = field(default_factory=dict)

    def arrive(self, address: str, now: float) -> str:
        """A connection from an address; `leave` undoes it when nothing was refused."""
        if self._level(address, now) > self.limits.failures - 1:
            return "too many failed logins from this address"
        if self._unknown.total() >= self.limits.unknown:
            return "too many connections that have not logged in"
        if self._unknown[address] >= self.limits.unknown_each:
            return "too many connections from this address that have not logged in"
        self._unknown[address] += 1
        return ""

    def leave(self, address: str) -> None:
        """That connection has logged in, or has gone without."""
        self._unknown[address] -= 1
        if self._unknown[address] <= 0:
            del self._unknown[address]

    def failed(self, address: str, now: float) -> None:
        """A connection from an address ended without a login, after it had tried keys."""
        level = self._level(address, now)
        if len(self._failures) > 10_000:  # addresses cost an attacker nothing, memory costs us
            self._failures = {a: b for a, b in self._failures.items() if self._level(a, now) > 0}
        self._failures[address] = _Bucket(level + 1, now)

    def _level(self, address: str, now: float) -> float:
        bucket = self._failures.get(address)
        if bucket is None:
            return 0.0
        return max(0.0, bucket.level - (now - bucket.at) / self.limits.forgiven)

    def begin(self, key: str) -> str:
        """A session of a key's line; `end` undoes it when nothing was refused."""
        if self.sessions >= self.limits.sessions:
            return f"the gateway has {self.sessions} sessions, which is all that it may have"
        if self._each[key] >= self.limits.sessions_each:
            return f"this key has {self._each[key]} sessions, which is all that it may have"
        self.sessions += 1
        self._each[key] += 1
        return ""

    def end(self, key: str) -> None:
        self.sessions -= 1
        self._each[key] -= 1
        if self._each[key] <= 0:
            del self._each[key]
