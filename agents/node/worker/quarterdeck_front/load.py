"""How much of each version is in use: requests in progress now, and their sum over time (pure).

`work` is request-seconds since the front began: the difference of two looks, by the time between them, is the
average number of requests in progress, however rarely somebody looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class _Use:
    running: int = 0
    queued: int = 0
    held: int = 0
    work: float = 0.0
    active: float = 0.0  # when it last had a request
    finished: int = 0


class Load:
    """Of all versions. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._uses: dict[str, _Use] = {}
        self.looked = now

    def look(
        self,
        now: float,
        requests: Mapping[str, tuple[int, int]],
        waiting: Mapping[str, int],
        finished: Mapping[str, int],
    ) -> None:
        """Take in what is so now.

        Args:
            requests: by backend, all requests and those in HAProxy's queue.
            waiting: those of them that are held for a first replica.
            finished: by backend, how many were ever answered.
        """
        passed, self.looked = now - self.looked, now
        for name in [name for name in self._uses if name not in requests]:
            del self._uses[name]
        for name, (every, queued) in requests.items():
            use = self._uses.setdefault(name, _Use(active=now, finished=finished.get(name, 0)))
            use.held = min(waiting.get(name, 0), every)
            use.running, use.queued = every - use.held - queued, queued + use.held
            use.work += (every - use.held) * passed
            if every or finished.get(name, 0) != use.finished:
                use.active = now
            use.finished = finished.get(name, 0)

    def to_json(self) -> dict[str, dict[str, Any]]:
        return {
            name: {
                "running": use.running,
                "queued": use.queued,
                "held": use.held,
                "work": round(use.work, 3),
                "idle": round(self.looked - use.active, 3),
            }
            for name, use in self._uses.items()
        }
