"""How long ranks may run without the controller when its absence is planned: leases granted ahead.

Pure. Times are seconds on the controller's monotonic clock, which begins anew with each controller.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is granted beyond each job's own lease.

    `until`: while that is to come, a lease lasts to there and the job's own from there on.
    `earlier`: what controllers before this one granted lasts no longer than that and the job's own
    from there on. They may have been granted just before this one began, and nobody knows to whom.
    """

    until: float = 0.0
    earlier: float = 0.0

    @classmethod
    def resumed(cls, now: float, longest: float, left: float) -> Ahead:
        """As a controller finds it that begins.

        Args:
            longest: the longest span that was granted ahead and may not be over yet.
            left: of the span that is in force.
        """
        return cls(now + left if left > 0.0 else 0.0, now + longest if longest > 0.0 else 0.0)

    def in_force(self, now: float) -> bool:
        return now < self.until

    def longer(self, now: float) -> float:
        """Seconds that a lease is longer now than the job's own."""
        return max(0.0, self.until - now)

    def begun(self, now: float, seconds: float) -> Ahead:
        return replace(self, until=now + seconds)

    def ended(self, now: float) -> Ahead:
        """Nothing more is granted ahead. What has been granted stays so."""
        return replace(self, until=min(self.until, now))

    def bound(self, granted: float | None, since: float, lease: float) -> float:
        """Until when an attempt's lease on a node can last at most.

        Args:
            granted: the bound of what this controller granted, if it did.
            since: when it first saw the attempt running.
            lease: the job's own.
        """
        known = since + lease if granted is None else granted
        return max(known, self.earlier + lease) if self.earlier else known
