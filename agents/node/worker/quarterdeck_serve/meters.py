"""What the server counts, in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left

EDGES = tuple(0.00025 * 1.5**step for step in range(29))
"""Upper edges of the latency histogram in seconds: 0.25 ms to 21 s, each half as much again."""


class Meters:
    """Counters of one model version."""

    def __init__(self, model: str, version: str) -> None:
        self.labels = f'model="{_quoted(model)}",version="{_quoted(version)}"'
        self._codes: dict[int, int] = {}
        self._buckets = [0] * (len(EDGES) + 1)
        self._seconds = 0.0
        self.running = 0

    def answered(self, status: int, seconds: float) -> None:
        """An inference was answered. Only what succeeded counts as latency: errors are quick."""
        self._codes[status] = self._codes.get(status, 0) + 1
        if status < 400:
            self._buckets[bisect_left(EDGES, seconds)] += 1
            self._seconds += seconds

    def text(self) -> str:
        labels = self.labels
        lines = [
            "# HELP qd_requests_total Inference requests answered, by status.",
            "# TYPE qd_requests_total counter",
            *(
                f'qd_requests_total{{{labels},code="{code}"}} {count}'
                for code, count in sorted(self._codes.items())
            ),
            "# HELP qd_requests_running Inference requests that are being answered now.",
            "# TYPE qd_requests_running gauge",
            f"qd_requests_running{{{labels}}} {self.running}",
            "# HELP qd_request_seconds Time from a request to its answer, errors left out.",
            "# TYPE qd_request_seconds histogram",
        ]
        total = 0
        for edge, count in zip((*EDGES, float("inf")), self._buckets, strict=True):
            total += count
            name = "+Inf" if edge == float("inf") else f"{edge:.6g}"
            lines.append(f'qd_request_seconds_bucket{{{labels},le="{name}"}} {total}')
        lines += [
            f"qd_request_seconds_sum{{{labels}}} {self._seconds:.6f}",
            f"qd_request_seconds_count{{{labels}}} {total}",
        ]
        return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
