"""Prometheus' text format, as far as it is used here: counters, gauges and histograms. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

Labels = Mapping[str, str]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Page:
    """A page of metrics in the making. Every family comes once, with all its samples together."""

    def __init__(self) -> None:
        self._families: dict[str, list[str]] = {}

    def counter(self, name: str, help: str, value: float, labels: Labels | None = None) -> None:
        """`name` ends in `_total`."""
        self._family(name, help, "counter").append(_sample(name, labels or {}, value))

    def gauge(self, name: str, help: str, value: float, labels: Labels | None = None) -> None:
        self._family(name, help, "gauge").append(_sample(name, labels or {}, value))

    def histogram(
        self,
        name: str,
        help: str,
        buckets: Sequence[tuple[float, int]],
        total: float,
        labels: Labels | None = None,
    ) -> None:
        """Args:
        buckets: (upper edge, how many were up to it and over the one before), edges rising; the last
            edge is infinite.
        total: the sum of what was observed.
        """
        lines, named, count = self._family(name, help, "histogram"), labels or {}, 0
        for edge, more in buckets:
            count += more
            le = "+Inf" if edge == float("inf") else f"{edge:.6g}"
            lines.append(_sample(f"{name}_bucket", {**named, "le": le}, count))
        lines.append(_sample(f"{name}_sum", named, total))
        lines.append(_sample(f"{name}_count", named, count))

    def _family(
        self, name: str, help: str, kind: Literal["counter", "gauge", "histogram"]
    ) -> list[str]:
        head = [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
        return self._families.setdefault(name, head)

    def text(self) -> str:
        lines = [line for family in self._families.values() for line in family]
        return "".join(f"{line}\n" for line in lines)


def _sample(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_quoted(text)}"' for key, text in labels.items())
    told = str(value) if isinstance(value, int) else f"{value:.9g}"
    return f"{name}{{{inside}}} {told}" if inside else f"{name} {told}"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
