"""Which jobs have run for too long, and which allocations cannot be alive any more. Both by clocks alone."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

from agents.controller.core.live import Live
from agents.controller.nodes.links import Link
from jobs.life import boots
from jobs.life import lifecycle as lc
from jobs.life.outages import Ahead

LEASE_MARGIN = 5.0
"""Seconds beyond lease and grace before a silent node's ranks are taken for dead: the guard looks at
its lease about once a second, and clocks of two machines drift apart a little."""


def timeouts(
    holding: Iterable[Live], links: Mapping[str, Link], cluster: str, now: float
) -> Iterator[tuple[Live, lc.Timeout]]:
    """Jobs that have run into their own limit. One whose ranks have all ended runs no longer, though what
    they left may be on its way for long.

    Args:
        now: unix time, as the clock goes now.
    """
    for live in holding:
        limit, ends_by = live.spec.timeout, live.ends_by
        if limit is None or ends_by is None or live.job.state != "RUNNING" or not live.clocked:
            continue
        if now > ends_by and not _all_ended(live, links, cluster):
            yield live, lc.Timeout(limit)


def gone(
    holding: Iterable[Live],
    links: Mapping[str, Link],
    cluster: str,
    monotonic: float,
    ahead: Ahead,
) -> Iterator[tuple[Live, lc.Gone]]:
    """Allocations whose lease cannot last any longer, wherever their node is. What waits has no lease.

    Args:
        cluster: the registry's name, which is part of attempts' keys.
        monotonic: the controller's own clock, on which leases are booked.
        ahead: what was granted beyond the jobs' own leases. While that goes on, nothing is given up.
    """
    if ahead.in_force(monotonic):
        return
    for live in holding:
        attempt = live.job.attempt
        if attempt is None or attempt.started_at is None or attempt.waits:
            continue  # it never began, or no lease ends it
        lease, key = live.spec.lease, live.key(cluster)
        for allocation in attempt.allocations:
            if allocation.over:
                continue
            link = links.get(allocation.node)
            # Without a grant of ours: one by an earlier controller, before our start, or none yet.
            granted = link.bounds.get(key) if link is not None else None
            bound = ahead.bound(granted, live.running_since, lease)
            if link is not None and _ended(link, key, attempt.epoch):
                # Nobody renews the lease of what is over. What it leaves (a long log, a large checkpoint)
                # may be on its way for longer than that, as long as the node answers.
                bound = max(bound, link.clock_at + lease)
            if monotonic > bound + live.spec.grace + LEASE_MARGIN:
                reason = f"no contact for longer than its lease of {lease:g} s"
                silent = monotonic - link.clock_at if link is not None and link.clock_at else None
                yield live, lc.Gone(attempt.epoch, allocation.node, reason, silent)


def _all_ended(live: Live, links: Mapping[str, Link], cluster: str) -> bool:
    attempt = live.job.attempt
    if attempt is None:
        return False
    left = [links.get(one.node) for one in attempt.allocations if not one.over]
    key = live.key(cluster)
    return all(link is not None and _ended(link, key, attempt.epoch) for link in left)


def _ended(link: Link, key: str, epoch: int) -> bool:
    report = link.reports.get(key)
    return report is not None and (report["epoch"], report["state"]) == (epoch, "ended")


def unreported(
    holding: Iterable[Live], links: Mapping[str, Link], cluster: str, monotonic: float
) -> Iterator[tuple[Live, str]]:
    """Allocations of what waits, with their nodes, that run as far as is recorded, and that an agent
    which answers does not tell of. A registry that was restored may have forgotten that they ended."""
    for live in holding:
        attempt = live.job.attempt
        if attempt is None or not attempt.waits or live.job.state != "RUNNING":
            continue
        if monotonic < live.running_since + live.spec.lease:
            continue  # what was launched just now is told of soon
        for allocation in attempt.allocations:
            link = links.get(allocation.node)
            if allocation.over or link is None or not link.online:
                continue
            if live.key(cluster) not in link.reports:
                yield live, allocation.node


def restarted(
    holding: Iterable[Live], node: str, boot: str, known: Container[str], cluster: str
) -> Iterator[tuple[Live, lc.Gone]]:
    """Allocations that were staged on a node's machine before it was started anew, and that it does not know
    any more.

    Args:
        boot: in which the machine runs now (`jobs.life.boots`).
        known: keys of attempts that its agent tells of: how those ended is its to say.
    """
    for live, allocation in open_allocations(holding, node):
        if boots.restarted(allocation.boot, boot) and live.key(cluster) not in known:
            reason = "the node was restarted, and knows nothing of it any more"
            yield live, lc.Gone(live.epoch, allocation.node, reason)


def open_allocations(holding: Iterable[Live], node: str) -> Iterator[tuple[Live, lc.Allocation]]:
    """What is not over on a node."""
    for live in holding:
        attempt = live.job.attempt
        if attempt is not None:
            yield from (
                (live, one) for one in attempt.allocations if one.node == node and not one.over
            )
