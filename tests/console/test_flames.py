"""Folded stacks as a list, an SVG and a speedscope document."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from console import flames

TEXT = """\
thread (0x7f): MainThread;main (a.py:1);step (a.py:5);dot (b.py:7) 60
thread (0x7f): MainThread;main (a.py:1);step (a.py:6) 30
thread (0x7f): MainThread;main (a.py:1);step (a.py:5);step (a.py:9) 10
not a stack
"""


def test_functions_are_ranked_by_what_they_take_themselves() -> None:
    found = flames.functions(flames.parse(TEXT))
    assert [(f.name, f.own, f.total) for f in found] == [
        ("dot (b.py)", 60, 60),
        ("step (a.py)", 40, 100),  # called by itself, it counts once a sample
        ("main (a.py)", 0, 100),
    ]


def test_the_picture_is_xml_whatever_functions_are_called() -> None:
    stacks = flames.parse("a <b>&\x1b[31m (x.py:1);c 5\n" + ";".join("f" * 3000) + " 5\n")
    root = ElementTree.fromstring(flames.svg(stacks, "rank 0 of j1 <"))
    titles = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "a <b>&?[31m (x.py:1): 5 samples, 50.0%" in titles
    assert sum(title.startswith("f:") for title in titles) == 3000


def test_speedscope_has_the_same_samples_in_seconds() -> None:
    found = flames.speedscope(flames.parse(TEXT), "t", 100)
    (profile,) = found["profiles"]
    assert profile["endValue"] == sum(profile["weights"]) == pytest.approx(1.0)
    frames = found["shared"]["frames"]
    assert [frames[i]["name"] for i in profile["samples"][0]][-1] == "dot"
    assert frames[profile["samples"][0][-1]] == {"name": "dot", "file": "b.py", "line": 7}
