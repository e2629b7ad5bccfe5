"""What the console remembers from one session to the next. Pure: text in, text out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Session:
    """Where the person was, and how they had arranged it.

    Attributes:
        screen: "cluster", "jobs", ... or the id of a job or sweep.
        theme: name of a Textual theme; empty for the default.
        filter: the filter of the jobs table.
        sort: the order of the jobs table (`core.order.Order.text`).
        columns: names of the columns of the jobs table that were chosen, one a line; none for the usual ones.
        unfolded: ids of the sweeps whose trials are listed among the jobs, with spaces between them.
        nodes, queue, events, sweeps, trials, models, deployments, data: the orders of the other lists, in the
            same way.
        logs: how log lines are drawn: "wrapped", "unfolded", with a space between them.
        heat: what the heat map shows.
        metrics: job name -> the metric that was looked at.
    """

    screen: str = ""
    theme: str = ""
    filter: str = ""
    sort: str = ""
    columns: str = ""
    unfolded: str = ""
    nodes: str = ""
    queue: str = ""
    events: str = ""
    sweeps: str = ""
    trials: str = ""
    models: str = ""
    deployments: str = ""
    data: str = ""
    pipelines: str = ""
    alerts: str = ""
    logs: str = ""
    heat: str = ""
    metrics: dict[str, str] = field(default_factory=dict)


METRICS_KEPT = 100
"""Job names whose metric is remembered; the file stays small however many jobs are looked at."""


def parse(text: str) -> Session:
    """What an earlier session wrote. Anything that is not understood is left out: the file may be of
    another version, and is no reason not to open."""
    try:
        held = json.loads(text)
    except ValueError:
        return Session()
    if not isinstance(held, dict):
        return Session()
    known: dict[str, Any] = {}
    for one in fields(Session):
        value = held.get(one.name)
        if one.name == "metrics" and isinstance(value, dict):
            known["metrics"] = {str(k): v for k, v in value.items() if isinstance(v, str)}
        elif one.name != "metrics" and isinstance(value, str):
            known[one.name] = value
    return Session(**known)


def dump(session: Session) -> str:
    """Text for `parse`."""
    held = {one.name: getattr(session, one.name) for one in fields(Session)}
    held["metrics"] = dict(list(session.metrics.items())[-METRICS_KEPT:])
    return json.dumps(held, indent=1) + "\n"
