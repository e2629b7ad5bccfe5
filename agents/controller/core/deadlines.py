"""Which jobs have run for too long, and which parts cannot be alive any more. Both by clocks alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from agents.controller.core.live import Live
from agents.controller.nodes.links import Link
from jobs.life import lifecycle as lc
from jobs.life.outages import Ahead

LEASE_MARGIN = 5.0
"""Seconds beyond lease and grace before a silent node's ranks are taken for dead: the guard looks at
its lease about once a second, and clocks of two machines drift apart a little."""


def timeouts(holding: Iterable[Live], now: float) -> Iterator[tuple[Live, lc.Timeout]]:
    """Jobs that have run into their own limit.

    Args:
        now: unix time, as the clock goes now.
    """
    for live in holding:
        limit, ends_by = live.spec.timeout, live.ends_by
        if limit is None or ends_by is None or live.job.state != "RUNNING" or not live.clocked:
            continue
        if now > ends_by:
            yield live, lc.Timeout(limit)


def gone(
    holding: Iterable[Live],
    links: Mapping[str, Link],
    cluster: str,
    monotonic: float,
    ahead: Ahead,
) -> Iterator[tuple[Live, lc.Gone]]:
    """Parts whose lease cannot last any longer, wherever their node is.

    Args:
        cluster: the registry's name, which is part of attempts' keys.
        monotonic: the controller's own clock, on which leases are booked.
        ahead: what was granted beyond the jobs' own leases. While that goes on, nothing is given up.
    """
    if ahead.in_force(monotonic):
        return
    for live in holding:
        attempt = live.job.attempt
        if attempt is None or attempt.started_at is None:
            continue
        lease, key = live.spec.lease, live.key(cluster)
        for part in attempt.parts:
            if part.over:
                continue
            link = links.get(part.node)
            # Without a grant of ours: one by an earlier controller, before our start, or none yet.
            granted = link.bounds.get(key) if link is not None else None
            bound = ahead.bound(granted, live.running_since, lease)
            if monotonic > bound + live.spec.grace + LEASE_MARGIN:
                reason = f"no contact for longer than its lease of {lease:g} s"
                silent = monotonic - link.clock_at if link is not None and link.clock_at else None
                yield live, lc.Gone(attempt.epoch, part.node, reason, silent)
