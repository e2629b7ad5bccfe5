"""The rank plot: two parameters of a sweep, and how good each trial is there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from console.tui.core.draw.glyphs import ASCII, UNICODE
from console.tui.core.draw.lines import plain, width
from console.tui.core.sweeps import rank, words
from console.tui.core.sweeps.plots import Scene
from console.tui.core.sweeps.space import Dimension
from jobs.wire.sweepviews import ObjectiveView, TrialView
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, text, title

LR = Dimension("lr", 0.0, 1.0)
WIDTH = Dimension("width", 0.0, 100.0)
OPT = Dimension("opt", choices=("adam", "sgd", "a-very-long-name-of-an-optimizer"))
LAYERS = Dimension("layers", 1.0, 4.0, whole=True)
VALUE = Dimension("")


def trials(*points: tuple[float, object, float]) -> list[TrialView]:
    """Complete trials at (lr, second parameter, value)."""
    source = FakeSource().tables["sweep:s4"]
    some = next(t for key, t in source.items() if key != "s4" and t["state"] == "COMPLETE")
    return [
        {**some, "number": number, "params": {"lr": lr, "width": other, "opt": other, "layers": other},
         "values": [value]}  # type: ignore[typeddict-item]
        for number, (lr, other, value) in enumerate(points)
    ]  # fmt: skip


def scene(held: list[TrialView]) -> Scene:
    objective: ObjectiveView = {"metric": "acc", "goal": "maximize"}
    values = [v for t in held if (v := words.reached(t)) is not None]
    return Scene(held, [objective], words.Quality(values, objective))


def drawn(held: list[TrialView], up: Dimension = WIDTH, chosen: int | None = None) -> list[str]:
    picture = rank.rank(scene(held), LR, up, 48, 12, UNICODE)
    return [plain(row) for row in picture(None if chosen is None else held[chosen])]


def test_the_best_trial_has_the_highest_block_where_it_is() -> None:
    rows = drawn(trials((0.0, 0.0, 0.1), (1.0, 100.0, 0.9), (0.5, 50.0, 0.5)))
    assert rows[0][-1] == "█" and rows[10][8] == "▁"
    assert sum(char in UNICODE.blocks for row in rows for char in row) == 3, "and nothing between"
    assert "lr" in rows[-1] and rows[0].strip().startswith("100")


def test_of_trials_in_one_cell_the_best_is_seen_and_the_chosen_one_over_all() -> None:
    held = trials((0.0, 0.0, 0.2), (0.5, 50.0, 0.9), (0.5, 50.0, 0.1), (0.5, 50.0, 0.5))
    assert sum(row.count("█") for row in drawn(held)) == 1
    assert sum(row.count("●") for row in drawn(held, chosen=2)) == 1


@pytest.mark.parametrize(
    ("axis", "values"),
    [(OPT, ["adam", "sgd", "adam"]), (LAYERS, [1, 3, 4])],
    ids=["choices", "few"],
)
def test_values_that_are_few_have_a_band_each(axis: Dimension, values: list[object]) -> None:
    held = trials(*((0.5, value, 0.01 * n) for n in range(20) for value in values))
    rows = drawn(held, axis)
    assert sum(char in UNICODE.blocks for row in rows for char in row) > len(set(values))
    bands = {"adam": range(7, 11), "sgd": range(4, 8)} | {
        1: range(8, 11),
        3: range(2, 6),
        4: range(3),
    }
    filled = {y for y, row in enumerate(rows[:-1]) if any(char in UNICODE.blocks for char in row)}
    assert filled <= {y for value in values for y in bands[value]}  # type: ignore[index]


def test_a_trial_without_one_of_the_two_is_counted_and_not_drawn() -> None:
    held = trials((0.5, 50.0, 0.5), (0.5, 60.0, 0.6))
    del held[1]["params"]["width"]
    assert rank.without(scene(held), LR, WIDTH) == 1
    assert sum(char in UNICODE.blocks for row in drawn(held) for char in row) == 1


@pytest.mark.parametrize("size", [(9, 3), (30, 8), (60, 20)])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_it_fits(size: tuple[int, int], glyphs: object) -> None:
    held = trials((0.1, "adam", 0.1), (0.9, "sgd", 0.3))
    held[0]["state"], held[1]["state"] = "RUNNING", "PRUNED"
    rows = rank.rank(scene(held), LR, OPT, *size, glyphs)(held[0])  # type: ignore[arg-type]
    assert max(width(row) for row in rows) <= size[0]
    if glyphs is ASCII:
        assert all(plain(row).isascii() for row in rows)
    assert rank.rank(replace(scene(held), trials=[]), LR, OPT, *size, UNICODE)(None)


def test_which_two_parameters_are_shown() -> None:
    axes, shares = [LR, WIDTH, OPT, VALUE], {"opt": 0.6, "lr": 0.3, "width": 0.1}
    assert rank.pair(axes, 3, None, shares) == (2, 0), "the two most important"
    assert rank.pair(axes, 1, None, shares) == (1, 2)
    assert rank.pair(axes, 1, 1, shares) == (1, 2), "never the same twice"
    assert rank.pair([LR, VALUE], 0, None, shares) is None
    assert rank.pair(axes, 0, None, None) == (0, 1)


async def test_keys_choose_the_two_parameters() -> None:
    async with running(start="s4") as (pilot, app):
        await press(pilot, *["shift+tab"] * 4)
        assert "Rank · width by lr" in title(app, "rank")
        await press(pilot, "l")
        assert "width by layers" in title(app, "rank")
        await press(pilot, "j", "h")
        assert "dropout by width" in title(app, "rank"), "never the same twice"
        assert "width" in text(app, "rank").split("\n")[-1]
