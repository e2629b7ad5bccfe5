"""How a service is scaled, in words for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.text import neutralise
from jobs.base.units import format_duration
from jobs.base.words import counted

if TYPE_CHECKING:
    from jobs.wire.serviceviews import ScalingView


def scaled(view: ScalingView) -> str:
    """How many replicas there are, what they have to do, and why there are not more or fewer."""
    bounds = f"scaled between {view['min']} and {view['max']}"
    if view["replicas"] == 0:
        hold = format_duration(view["hold"])
        parts = [f"at zero, {bounds}: a request starts a replica and waits for it, {hold} at most"]
    else:
        parts = [f"{view['ready']} of {counted(view['replicas'], 'replica')} ready, {bounds}"]
    if view["load"] is not None and view["replicas"]:
        parts.append(f"{view['load']:.3g} requests in progress")
    if view["held"]:
        parts.append(f"{counted(view['held'], 'request')} waiting for a replica")
    if view["blocked"]:
        parts.append(f"no room for all: {neutralise(view['blocked'])}")
    elif view["reason"]:
        parts.append(f"last change: {neutralise(view['reason'])}")
    return "; ".join(parts)
