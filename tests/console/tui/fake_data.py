"""Data sets for tests of the console."""

from __future__ import annotations

from typing import Any

from jobs.wire.dataviews import DataFile, DataVersionDetail
from jobs.wire.runviews import RunView
from jobs.wire.views import JobView
from tests.console.tui.fake_views import at


def number(name: str, histogram: list[int], low: float, high: float, **over: Any) -> dict[str, Any]:
    middle = (low + high) / 2
    view = {
        "name": name, "type": "number", "missing": 0, "distinct": sum(histogram), "min": low,
        "max": high, "mean": middle, "std": 1.0, "histogram": histogram,
        "quantiles": [low + (high - low) * share for share in (0.05, 0.25, 0.5, 0.75, 0.95)],
    }  # fmt: skip
    return view | over


def words(name: str, *top: str, **over: Any) -> dict[str, Any]:
    view = {"name": name, "type": "text", "missing": 0, "distinct": len(top), "top": list(top)}
    return view | over


def times(name: str) -> dict[str, Any]:
    return {"name": name, "type": "time", "missing": 0, "distinct": 812,
            "first": "2026-01-01 00:00:00", "last": "2026-11-28 23:59:41"}  # fmt: skip


def profile(rows: int, *, shift: float = 0.0) -> dict[str, Any]:
    return {
        "tables": [
            {
                "file": "people.csv",
                "rows": rows,
                "columns": [
                    number("age", [1, 4, 9, 14, 20, 17, 12, 8, 3, 1], 18 + shift, 97 + shift),
                    number("income", [60, 22, 9, 4, 2, 1, 1, 0, 0, 1], 0.0, 4.1e6, missing=rows // 25),
                    words("city", "Rome", "Lima", "Oslo", "Accra"),
                    times("seen"),
                ],
            },
            {"file": "broken.csv", "rows": 0, "columns": [], "error": "broken.csv: line 12 has 3 fields"},
        ]
    }  # fmt: skip


def version(
    name: str, number: int, note: str = "", *, days: float = 1, **over: Any
) -> DataVersionDetail:
    view: dict[str, Any] = {
        "id": f"{name}@{number}",
        "name": name,
        "version": number,
        "digest": f"sha256:{number:064x}",
        "files": 2,
        "bytes": 4_200_000 * number,
        "file": None,
        "source": f"/home/mira/{name}",
        "note": note,
        "user": "mira",
        "created_at": at(days * 86400),
        "profile": None,
    }
    return view | over  # type: ignore[return-value]


def versions() -> list[DataVersionDetail]:
    """The newest of each data set first."""
    old, new = profile(1200), profile(1500, shift=12.0)
    return [
        version("people", 3, "the June census", days=0.2, profile=new, rows=1500),
        version("people", 2, "duplicates removed", days=9, profile=old, rows=1200),
        version("people", 1, "as it came", days=40),
        version("digits", 1, "scans of March", days=200, files=70_000, bytes=11_000_000_000, user="joao"),
    ]  # fmt: skip


def files(ref: str) -> list[DataFile]:
    held: dict[str, list[tuple[str, str]]] = {
        "people@1": [("people.csv", "1"), ("old.csv", "1")],
        "people@2": [("people.csv", "2"), ("README.md", "1")],
        "people@3": [("people.csv", "3"), ("README.md", "1"), ("broken.csv", "1")],
    }
    return [
        {"path": path, "bytes": 900, "sha256": digit * 64, "link": None}
        for path, digit in held.get(ref, [])
    ]


def run(number: int, state: Any, **data: str) -> RunView:
    return {
        "id": f"j{number}.1",
        "job": f"j{number}",
        "name": "train-census",
        "user": "mira",
        "state": state,
        "params": {},
        "metrics": {},
        "tags": {},
        "data": data,
        "seed": None,
        "commit": "",
        "dirty": False,
        "snapshot": None,
        "submitted_at": at(600),
        "started_at": at(500),
        "ended_at": None,
    }


def runs() -> list[RunView]:
    return [
        run(431, "RUNNING", train="people@3", test="people@2"),
        run(412, "SUCCEEDED", train="people@2"),
        run(407, "FAILED"),
    ]


def run_of(job: JobView, points: int) -> RunView:
    """What is known of a job of `fake_views`, the same each time."""
    number = int(job["id"][1:])
    view = run(number, job["state"])
    view["params"] = {"lr": 10.0 ** -(1 + number % 4), "optimizer": ("adam", "sgd")[number % 2]}
    view["metrics"] = {"loss": None if number % 5 == 0 else 2.0 + number % 7 / 10}
    view["tags"] = {**job["tags"], "logged": "yes"}
    if points:
        view["curve"] = [1 - 0.8**step for step in range(number % 13)]
    return view
