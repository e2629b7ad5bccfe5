"""Text from programs and other people, where it reaches a terminal: nothing there acts on it."""

from __future__ import annotations

import pytest

from console.cli.output import Column, narrate, table
from console.tui.core.draw.lines import fit, line
from console.tui.screens.modals import Page
from console.tui.widgets.lines import LineView
from tests.console.tui.pilots import running, screen_text, settle, title

HOSTILE = "loss\x1b[2J\x9b2J\x07\u202e"
SHOWN = "loss␛[2J\\x9b2J␇\\u202e"


def test_tables_and_notes_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    head, row = table([Column(HOSTILE)], [[HOSTILE]], None)
    assert (head.strip(), row.strip()) == (SHOWN, SHOWN)
    narrate(HOSTILE)
    assert capsys.readouterr().err == f"{SHOWN}\n"


async def test_titles_cells_pages_and_toasts_of_the_console() -> None:
    markup = SHOWN.replace("[", "(")
    async with running() as (pilot, app):
        assert app.top is not None
        app.top.set_title("node", HOSTILE)
        assert title(app, "node") == markup
        assert fit(HOSTILE, len(SHOWN)) == SHOWN
        app.tell(HOSTILE)
        await settle(pilot)
        assert [note.message for note in app._notifications] == [SHOWN]
        app.page(HOSTILE, lambda width: [line((HOSTILE, ""))])
        await settle(pilot)
        assert isinstance(app.screen, Page)
        assert app.screen.query_one(".box").border_title == markup
        assert app.screen.query_one("#page", LineView).count() == 1
        assert SHOWN in screen_text(app)
        assert not set("\x1b\x9b\x07\u202e") & set(screen_text(app))
