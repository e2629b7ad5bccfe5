"""What is left out of a frame must stand on the terminal already."""

from __future__ import annotations

import re

from rich.cells import cell_len

from console.text import char_width
from tests.console.tui.counting import CountingDriver, counted
from tests.console.tui.fake_views import job
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, screen_text, settle


class Screen:
    """A terminal as far as the console uses one: it moves the cursor and writes."""

    def __init__(self, width: int, height: int) -> None:
        self.cells = [[" "] * width for _ in range(height)]
        self._x = self._y = 0

    def write(self, data: str) -> None:
        for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r\n|\n|\r)", data):
            place = re.fullmatch(r"\x1b\[(\d+);(\d+)H", part)
            if place:
                self._y, self._x = int(place[1]) - 1, int(place[2]) - 1
            elif part in ("\n", "\r\n"):
                self._y += 1
            elif not part.startswith(("\x1b", "\r")):
                for char in part:
                    self._put(char)

    def _put(self, char: str) -> None:
        if self._y < len(self.cells) and self._x < len(self.cells[0]):
            self.cells[self._y][self._x] = char
            for extra in range(1, char_width(char)):
                self.cells[self._y][self._x + extra] = ""
        self._x += char_width(char)

    @property
    def text(self) -> str:
        return "\n".join("".join(row) for row in self.cells)


async def test_a_terminal_shows_what_the_screen_holds_after_any_walk() -> None:
    source = FakeSource()
    terminal = Screen(120, 36)
    write = CountingDriver.write

    def both(self: CountingDriver, data: str) -> None:
        write(self, data)
        terminal.write(data)

    CountingDriver.write = both  # type: ignore[method-assign]
    try:
        async with counted(source) as (pilot, app, _, _):
            await press(pilot, *"2j", "enter", "m", "escape", "question_mark", "escape", *"1712")
            await press(pilot, "slash", "m", "enter", *"1pp2")
            source.put("jobs", "j435", job(435, "QUEUED", name="mira-new"))
            await settle(pilot)
            await press(pilot, "1", "2", "n", "escape")
            await pilot.pause(0.1)
            shown = [row.rstrip() for row in terminal.text.splitlines()]
            held = [row.rstrip() for row in screen_text(app).splitlines()]
            assert shown == held
            assert all(cell_len(row) <= 120 for row in shown)
    finally:
        CountingDriver.write = write  # type: ignore[method-assign]


async def test_going_back_to_a_screen_writes_it_once() -> None:
    async with counted(FakeSource()) as (pilot, _, driver, _):
        await press(pilot, "2")
        driver.taken()
        await press(pilot, "1")
        assert driver.taken() < 40_000
