"""How a sweep's values are spread, and the surface through them over two parameters."""

from __future__ import annotations

import pytest

from console.tui.core.draw.glyphs import ASCII, UNICODE
from console.tui.core.draw.lines import plain, width
from console.tui.core.sweeps import surface
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, text, title
from tests.console.tui.test_rank import LR, OPT, WIDTH, scene, trials

SPREAD = trials(*((0.1 * n, 10.0 * n, 0.1 * n) for n in range(11)))


def contour(held: list, glyphs: object = UNICODE, up: object = WIDTH) -> list[str]:  # type: ignore[type-arg]
    picture = surface.contour(scene(held), LR, up, 48, 12, glyphs)  # type: ignore[arg-type]
    return [plain(row) for row in picture(None)]


def test_the_spread_goes_from_none_to_all_and_marks_the_chosen_trial() -> None:
    rows = [plain(row) for row in surface.edf(scene(SPREAD), 48, 12, UNICODE)(SPREAD[5])]
    assert rows[0].strip().startswith("100%") and rows[-2].strip().startswith("0%")
    assert rows[-1].split() == ["0", "acc", "1"]
    (marked,) = [row for row in rows if UNICODE.live in row]
    assert "● 0.5" in marked and rows.index(marked) in (4, 5)


def test_a_spread_of_equal_values_and_of_none() -> None:
    assert len(surface.edf(scene(trials((0.1, 1.0, 0.5))), 48, 12, UNICODE)(None)) == 12
    assert "No trial is complete" in plain(surface.edf(scene([]), 48, 12, UNICODE)(None)[0])


def test_the_surface_rises_towards_the_best_and_is_empty_where_nobody_was() -> None:
    rows = contour(SPREAD)
    assert rows[0].rstrip()[-1] in "█•" and "·" in rows[10]
    assert rows[0][10] == " " and rows[10][-1] == " ", "far from all trials"
    assert sum(row.count(UNICODE.mark) for row in rows) == 11


def test_few_trials_make_no_surface() -> None:
    assert "three complete trials" in contour(SPREAD[:2])[0]


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
@pytest.mark.parametrize("cells", [20, 48, 120])
def test_pictures_fit(cells: int, glyphs: object) -> None:
    some = trials((0.0, "adam", 0.1), (0.5, "sgd", 0.5), (1.0, "sgd", 0.7))
    for picture in (
        surface.contour(scene(some), LR, OPT, cells, 9, glyphs),  # type: ignore[arg-type]
        surface.edf(scene(some), cells, 9, glyphs),  # type: ignore[arg-type]
    ):
        for one in (None, some[1]):
            drawn = picture(one)
            assert len(drawn) <= 9 and all(width(row) <= cells for row in drawn)
            assert glyphs is UNICODE or all(plain(row).isascii() for row in drawn)


async def test_the_spread_is_walked_by_value_and_the_surface_by_parameters() -> None:
    async with running(FakeSource(), start="s4", size=(160, 50)) as (pilot, app):
        app.screen.focus_pane("edf")  # type: ignore[attr-defined]
        await press(pilot, "l")
        first = app.screen.chosen  # type: ignore[attr-defined]
        await press(pilot, "l")
        assert app.screen.chosen != first  # type: ignore[attr-defined]
        assert "EDF" in title(app, "edf") and "100%" in text(app, "edf")
        app.screen.focus_pane("contour")  # type: ignore[attr-defined]
        await press(pilot)
        before = text(app, "contour").splitlines()[-1]
        await press(pilot, "l")
        assert text(app, "contour").splitlines()[-1] != before
        assert "means" in title(app, "contour")


async def test_tabs_that_have_no_room_are_shortened_and_can_be_clicked() -> None:
    async with running(FakeSource(), start="s4", size=(80, 24)) as (pilot, app):
        app.screen.focus_pane("edf")  # type: ignore[attr-defined]
        await press(pilot)
        said = title(app, "edf")
        assert "Imp" in said and "Importance" not in said and "EDF" in said
