"""`qd report`: one page that opens anywhere, whatever people have called their things."""

from __future__ import annotations

import errno
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.console.fake_controller import FakeController
from tests.console.sample_views import detail
from tests.console.test_cli_pipelines import detail as pipeline_detail
from tests.console.test_cli_pipelines import task
from tests.console.test_cli_sweeps import sweep, trial

HOSTILE = "</td><script>alert(1)</script>\x1b[2J\u202e"


class _Page(HTMLParser):
    """Which elements and attributes there are, and that each one is closed."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [found[name] or "" for name in ("href", "src") if name in found]
        if "id" in found:
            self.ids.add(found["id"] or "")
        if tag == "svg":
            assert found.get("aria-label") or found.get("aria-hidden"), "a reader must know of it"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(path: Path) -> _Page:
    text = path.read_text()
    page = _Page(text)
    assert page.open == [] and "script" not in page.tags
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"https?://|url\(|@import|[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    return page


def run(number: int, controller: FakeController, metrics: int = 2, **over: Any) -> None:
    names = [f"m{n}" for n in range(metrics)]
    at = "2026-01-01T00:00:00Z"
    values = {name: {"value": 0.1 * number, "step": 9, "at": at} for name in names}
    spec = {"command": ["python", "train.py", HOSTILE], "params": {"lr": 0.1 * number}}
    view = detail(number, "SUCCEEDED", spec=spec, metrics=values, **over)
    controller.on(f"GET /v1/jobs/j{number}", view)
    controller.on(f"GET /v1/jobs/j{number}/code", [])

    def series(request: Any) -> dict[str, Any]:
        count = int(request.one("points"))
        line = [
            {"step": n * 1000, "at": 1.7e9, "value": math.sin(n * number)} for n in range(count)
        ]
        return dict.fromkeys(names, line)

    controller.on(f"GET /v1/jobs/j{number}/series", series)


def test_runs(qd: Any, controller: FakeController, tmp_path: Path) -> None:
    run(1, controller)
    run(
        2,
        controller,
        name=HOSTILE,
        git={"commit": "c" * 40, "branch": "b", "dirty": True, "diff": HOSTILE},
    )
    told = qd("report", "j1", "2", "-o", str(tmp_path / "r.html"), "--title", HOSTILE)
    assert told.code == 0 and "written to" in told.err
    page = page_of(tmp_path / "r.html")
    for text in ("j1", "param.lr", "0.2", "m0", "Differences", "␛[2J", "ccc with changes"):
        assert text.replace("ccc", "c" * 12) in page.text, text
    assert page.tags.count("polyline") == 4


def test_a_hundred_runs_are_less_than_a_megabyte(
    qd: Any, controller: FakeController, tmp_path: Path
) -> None:
    for number in range(1, 101):
        run(number, controller, metrics=20)
    path = tmp_path / "r.html"
    assert qd("report", *(f"j{n}" for n in range(1, 101)), "-o", str(path)).code == 0
    assert path.stat().st_size < 1_000_000
    assert "j100" in page_of(path).text


def test_a_sweep_and_a_pipeline(qd: Any, controller: FakeController, tmp_path: Path) -> None:
    trials = [trial(n, values=[n / 10]) for n in range(4)] + [trial(4, "FAILED")]
    extra: dict[str, Any] = {"spec": {}, "snapshot": None, "study": "x", "front": []}
    controller.on("GET /v1/sweeps/s1", {**sweep("FINISHED"), **extra})
    controller.on("GET /v1/sweeps/s1/trials", trials)
    controller.on("GET /v1/sweeps/s1/importance", {"lr": 0.8, "kind": 0.2})
    curves = [{"number": 0, "state": "COMPLETE", "points": [[0, 0.1], [1, 0.2]]}]
    controller.on("GET /v1/sweeps/s1/curves", curves)
    controller.on("GET /v1/pipelines/p1", pipeline_detail(task("a"), task("b", started_at=None)))
    assert qd("report", "s1", "p1", "-o", str(tmp_path / "r.html")).code == 0
    page = page_of(tmp_path / "r.html")
    for text in ("2 trials", "80%", "acc", "Pipeline p1", "probe"):
        assert text in page.text
    assert {"s1", "p1"} <= page.ids


@pytest.mark.parametrize("words", [(), ("s9",), ("--filter", "acc > 1"), ("nosuch",)])
def test_what_is_not_there(
    qd: Any, controller: FakeController, tmp_path: Path, words: tuple[str, ...]
) -> None:
    controller.on("GET /v1/runs", {"runs": [], "next": None, "total": 0})
    controller.on("GET /v1/models", [])
    told = qd("report", *words, "-o", str(tmp_path / "r.html"))
    assert told.code in (2, 3) and "Traceback" not in told.err
    assert not (tmp_path / "r.html").exists()


def test_a_file_that_exists_stays(qd: Any, controller: FakeController, tmp_path: Path) -> None:
    run(1, controller)
    path = tmp_path / "r.html"
    path.write_text("mine")
    told = qd("report", "j1", "-o", str(path))
    assert (told.code, path.read_text()) == (6, "mine") and "--force" in told.err
    assert qd("report", "j1", "-o", str(path), "--force").code == 0
    assert qd("report", "j1", "-o", str(tmp_path / "no" / "r.html")).code not in (0, 1)


def test_a_report_that_does_not_fit_leaves_the_one_that_is_there(
    qd: Any, controller: FakeController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(1, controller)
    path = tmp_path / "r.html"
    path.write_text("last week's")
    write = Path.write_bytes

    def half(self: Path, data: bytes) -> int:
        write(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", half)
    told = qd("report", "j1", "-o", str(path), "--force")
    assert told.code not in (0, 1) and "No space left" in told.err
    assert path.read_text() == "last week's" and not list(tmp_path.glob("*.part"))
