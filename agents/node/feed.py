"""What a sync hands over of logs and metrics, within its budget of bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from agents.node import accounts
from agents.node.attempts import Attempt
from agents.node.logtail import fair_shares, read_lines
from jobs.wire.messages import LogChunk, MetricChunk

Cursors = Mapping[str, Mapping[int, int]]


def chunks(
    attempts: Iterable[Attempt], logs: Cursors, metrics: Cursors, budget: int
) -> tuple[list[LogChunk], list[MetricChunk]]:
    """Bytes of each rank's files from the offsets given on: key -> rank -> offset.

    Only what was observed is given, so each log byte has the time it was seen. Nothing is given for
    what the maps do not name.
    """
    attempts = list(attempts)
    log_needs, metric_needs = _log_needs(attempts, logs), _metric_needs(attempts, metrics)
    shares = fair_shares([need for *_, need in (*log_needs, *metric_needs)], budget)
    log_chunks, metric_chunks = [], []
    for (attempt, rank, offset, _), share in zip(log_needs, shares, strict=False):
        stream = attempt.streams[rank]
        final = attempt.standing.state == "ended"
        if share and (data := stream.read_log(offset, share, final=final)):
            times = stream.index.between(offset, offset + len(data))
            log_chunks.append(
                LogChunk(key=attempt.key, rank=rank, offset=offset, data=data, times=times)
            )
    for (attempt, rank, offset, _), share in zip(
        metric_needs, shares[len(log_needs) :], strict=True
    ):
        final = attempt.standing.state == "ended"
        with contextlib.suppress(OSError):
            if not share:
                continue
            path = attempt.streams[rank].metrics
            with accounts.acting_for(path.parent):
                data = read_lines(path, offset, share, final=final)
            if data:
                metric_chunks.append(
                    MetricChunk(key=attempt.key, rank=rank, offset=offset, data=data)
                )
    return log_chunks, metric_chunks


_Need = tuple[Attempt, int, int, int]  # attempt, rank, offset, bytes behind it


def _log_needs(attempts: Iterable[Attempt], cursors: Cursors) -> list[_Need]:
    return [
        (attempt, rank, offset, stream.index.size - offset)
        for attempt in attempts
        for rank, offset in cursors.get(attempt.key, {}).items()
        if (stream := attempt.streams.get(rank)) and 0 <= offset < stream.index.size
    ]


def _metric_needs(attempts: Iterable[Attempt], cursors: Cursors) -> list[_Need]:
    return [
        (attempt, rank, offset, stream.metrics_size - offset)
        for attempt in attempts
        for rank, offset in cursors.get(attempt.key, {}).items()
        if (stream := attempt.streams.get(rank)) and 0 <= offset < stream.metrics_size
    ]
