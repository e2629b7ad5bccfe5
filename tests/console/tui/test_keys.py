"""Every key that footer and help tell of, pressed where they tell of it."""

from __future__ import annotations

import pytest
from textual.dom import DOMNode

from console.tui import actions, app, dispatch
from console.tui.core.base import bars
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, send, text

COMPARE = ("space", "space", "C")

OF_TEXTUAL = "ctrl+p"
"""Opens the palette without a word to us; `test_the_palette_offers_actions_and_does_them` presses it."""

PLACES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("cluster", "heat", ()),
    ("cluster", "node", ()),
    ("cluster", "util", ()),
    ("cluster", "queue", ()),
    ("cluster", "events", ()),
    ("jobs", "table", ()),
    ("jobs", "compare", COMPARE),
    ("j412", "ranks", ()),
    ("j412", "logs", ()),
    ("j412", "files", ()),
    ("j412", "metrics", ()),
    ("j412", "gpus", ()),
    ("j412", "attempts", ()),
    ("events", "alerts", ()),
    ("events", "happenings", ()),
    ("sweeps", "sweeps", ()),
    ("models", "models", ()),
    ("deployments", "deployments", ()),
    ("data", "table", ()),
    ("pipelines", "table", ()),
    ("pipelines", "schedules", ()),
    ("p9", "steps", ()),
    ("p9", "logs", ()),
    ("alerts", "table", ()),
    ("s3", "board", ()),
    ("s3", "trials", ()),
    ("s3", "race", ()),
    ("s3", "history", ()),
    ("s3", "importance", ()),
    ("s3", "parallel", ()),
    ("s4", "rank", ()),
    ("s4", "contour", ()),
    ("s4", "edf", ()),
    ("s4", "front", ()),
)
"""Where to open the console, the pane to focus, and keys that lead there."""


@pytest.mark.parametrize(("start", "pane", "keys"), PLACES, ids=lambda value: str(value))
async def test_each_key_does_what_it_stands_for(
    start: str, pane: str, keys: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def record(begin: DOMNode, wanted: str, *keys: str) -> bool:
        done.append(wanted)
        return dispatch.find(begin, actions.by_id(wanted).method) is not None

    async with running(FakeSource(), start=start, size=(160, 50)) as (pilot, deck):
        await press(pilot, *keys)
        screen = deck.top
        assert screen is not None
        screen.focus_pane(pane)
        await pilot.pause(0)
        monkeypatch.setattr(dispatch, "perform", record)
        monkeypatch.setattr(app, "perform", record)
        taken: set[str] = set()
        for action in actions.in_scopes(screen.scopes()):
            for key in action.keys:
                if key in taken or key == OF_TEXTUAL:
                    continue  # something nearer has it
                taken.add(key)
                done.clear()
                await send(pilot, key)
                assert done == [action.id], key
                assert dispatch.find(deck.focused or screen, action.method), action.id
        assert {"q", "question_mark", "colon", "escape"} <= taken


@pytest.mark.parametrize(("start", "pane", "keys"), PLACES, ids=lambda value: str(value))
async def test_footer_and_help_tell_of_what_works_there(
    start: str, pane: str, keys: tuple[str, ...]
) -> None:
    async with running(FakeSource(), start=start, size=(240, 50)) as (pilot, deck):
        await press(pilot, *keys)
        screen = deck.top
        assert screen is not None
        screen.focus_pane(pane)
        await pilot.pause(0)
        screen.redraw_frame()
        works = actions.in_scopes(screen.scopes())
        reached = actions.unshadowed(screen.scopes())
        footer = [(action.show, action.label) for action in reached if action.label]
        told = "".join(span.text for span in bars.footer(footer, 240))
        assert text(deck, "footer").rstrip() == told.rstrip()
        await press(pilot, "question_mark")
        page = text(deck, "page")
        assert [action.id for action in works if action.help not in page] == []
