"""Monitors and keys of services, for tests of the console."""

from __future__ import annotations

from typing import Any

from jobs.wire.monitorviews import MonitorRunView, MonitorView
from jobs.wire.serviceviews import KeyView
from tests.console.tui.fake_views import at


def feature(name: str, size: float | None, *, drift: bool = False, **over: Any) -> dict[str, Any]:
    one = {
        "name": name, "family": "inputs", "kind": "number", "drift": drift, "size": size,
        "psi": size and size / 2, "p": None if size is None else 0.01, "q": 0.01,
        "missing": [0.0, 0.0], "new": [],
        "histogram": {"before": [0.1, 0.4, 0.4, 0.1, 0.0], "after": [0.0, 0.1, 0.2, 0.4, 0.3]},
    }  # fmt: skip
    return one | over


def report() -> dict[str, Any]:
    words = {"kind": "category", "new": [{"value": "Accra", "share": 0.12}]}
    return {
        "rows": 1200,
        "reference_rows": 60_000,
        "level": 0.01,
        "joint": None,
        "features": [
            feature("brightness", 0.83, drift=True),
            feature("city", 0.31, drift=True, **words),
            *(feature(f"pixel{i}", 0.02) for i in range(9)),
            feature("rotation", None, histogram=None, psi=None),
        ],
    }


def window(number: int, status: str, **over: Any) -> MonitorRunView:
    view: dict[str, Any] = {
        "id": number, "service": "digits", "target": "production", "version": "digits:3",
        "since": at(90_000), "until": at(3600), "scheduled": True, "user": "mira", "requests": 1200,
        "job": "j431", "state": "DONE", "status": status, "reason": "", "drifted": [], "report": {},
    }  # fmt: skip
    return view | over  # type: ignore[return-value]


def monitor(*runs: MonitorRunView, **over: Any) -> MonitorView:
    view: dict[str, Any] = {
        "service": "digits", "target": "production", "version": "digits:3", "every": 86_400.0,
        "alarms": 1.0, "level": 0.01, "least": 200, "limit": 0.1, "reference": "digits@2",
        "reference_rows": 60_000, "drifting": True, "windows": len(runs), "runs": list(runs),
    }  # fmt: skip
    return view | over  # type: ignore[return-value]


def monitors() -> dict[str, MonitorView]:
    drifted = window(7, "drift", drifted=["brightness", "city"], reason="2 of 12 features drift")
    few = window(9, "not enough data", requests=12, reason="12 requests; 200 are needed")
    return {
        "digits": monitor(window(8, "", state="RUNNING", requests=900), drifted),
        "ocr": monitor(few, service="ocr", reference=None, reference_rows=0),
        "search": monitor(service="search", every=None),
    }


def keys(service: str) -> list[KeyView]:
    def key(name: str, revoked: str | None = None) -> KeyView:
        return {"service": service, "target": "production", "name": name, "rate": "100/s",
                "user": "mira", "created_at": at(9000), "revoked_at": revoked}  # fmt: skip

    return [key("shop"), key("mobile"), key("old", at(60))]
