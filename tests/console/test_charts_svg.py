"""Charts of reports: what is drawn of odd values, and that nothing in a name becomes markup."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.report import charts
from console.report.charts import Bar, Curve

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
SVG_NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40)


def parsed(drawn: str | None) -> ElementTree.Element:
    assert drawn is not None
    return ElementTree.fromstring(drawn)  # our own


@given(st.lists(st.tuples(SVG_NAMES, st.lists(st.tuples(FLOATS, FLOATS), max_size=5)), max_size=12))
def test_lines_stay_within_the_drawing(found: list[tuple[str, list[tuple[float, float]]]]) -> None:
    drawn = charts.lines("a metric", [Curve(name, points) for name, points in found])
    known = [p for _, points in found for p in points if all(map(charts.drawable, p))]
    assert (drawn is None) == (not known)
    if drawn is None:
        return
    root = parsed(drawn)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for line in root.iter("polyline"):
        for pair in line.attrib["points"].split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= width and 0 <= y <= height


def test_a_line_of_one_value_and_one_of_one_point() -> None:
    flat = parsed(charts.lines("m", [Curve("j1", [(0, 5.0), (1, 5.0)])]))
    assert {p.split(",")[1] for p in flat.findall("polyline")[0].attrib["points"].split()} == {
        flat.findall("polyline")[0].attrib["points"].split(",")[1].split()[0]
    }
    assert parsed(charts.lines("m", [Curve("j1", [(3, 5.0)])])).find("circle") is not None


def test_names_are_text() -> None:
    name = "<script>alert('x')</script>&\""
    for drawn in (
        charts.lines(name, [Curve(name, [(0, 1.0), (1, 2.0)])]),
        charts.bars(name, [(name, 0.5)]),
        charts.stretches(name, [Bar(name, 0.0, 1.0, name)]),
        charts.parallel(name, [name, "b"], [(name, [1.0, name])]),
        charts.history(name, [(0, 1.0)], maximize=True),
    ):
        root = parsed(drawn)
        assert root.attrib["role"] == "img" and root.attrib["aria-label"]
        assert "script" not in {element.tag for element in root.iter()}


@pytest.mark.parametrize(("maximize", "best"), [(True, "3"), (False, "1")])
def test_the_best_so_far(maximize: bool, best: str) -> None:
    root = parsed(charts.history("acc", [(0, 2.0), (1, 1.0), (2, 3.0)], maximize=maximize))
    assert root.attrib["aria-label"].endswith(f"the best is {best}")
    heights = [float(p.split(",")[1]) for p in root.find("polyline").attrib["points"].split()]  # type: ignore[union-attr]
    assert heights == sorted(heights, reverse=maximize), "it never gets worse"


def test_an_axis_of_parameters() -> None:
    rows: list[tuple[str, list[float | str | None]]] = [
        ("trial 1", [1e-5, "adam", 0.9]),
        ("trial 2", [1e-1, "sgd", None]),
        ("t3", [1e-3, "adam", 0.1]),
    ]
    root = parsed(charts.parallel("params", ["lr", "opt", "acc"], rows))
    lines = {
        line.findtext("title"): line.attrib["points"].split() for line in root.iter("polyline")
    }
    assert len(lines["trial 2"]) == 2, "no value, no point"
    heights = {name: float(points[0].split(",")[1]) for name, points in lines.items()}
    middle = (heights["trial 1"] + heights["trial 2"]) / 2
    assert heights["t3"] == pytest.approx(middle, abs=0.2), "an axis over decades is logarithmic"
    assert charts.parallel("params", ["lr"], rows) is None


def test_nothing_to_draw() -> None:
    assert charts.bars("m", []) is None and charts.stretches("m", []) is None
    assert charts.history("m", [], maximize=True) is None
    assert charts.lines("m", [Curve("j1", [(0, math.nan)])]) is None
