"""What copies of requests have shown of a new version, in words: for the command line and the console."""

from __future__ import annotations

from console.text import neutralise
from jobs.base.units import format_duration
from jobs.wire.serviceviews import ShadowView


def shadowed(view: ShadowView) -> list[str]:
    """How many copies there were, how long both versions took, and each output."""
    copies = f"{view['copies']} copies of {view['percent']:g} % of the requests compared"
    if view["dropped"]:
        copies += f", {view['dropped']} dropped"
    texts = [copies]
    old, new = view["old_p95"], view["new_p95"]
    if old is not None and new is not None:
        texts.append(f"p95 {_time(new)} against {_time(old)}")
    for one in view["outputs"]:
        if not one["rows"]:
            continue
        share = f"{100 * one['same'] / one['rows']:.4g} % of {one['rows']} rows"
        text = f"{neutralise(one['name'])} the same in {share}"
        if one["mean"] is not None and one["most"] is not None:
            text += f", {one['mean']:.3g} apart on average, {one['most']:.3g} at most"
        texts.append(text)
    if view["wanted"] is not None:
        texts.append(f"{view['wanted']:g} % must be the same")
    return texts


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 10 else format_duration(seconds)
