"""Data: every data set and its versions, what is in one, and what differs between two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual import on
from textual.message import Message

from console.tui.actions import bindings
from console.tui.core.base.filter import Filter
from console.tui.core.data import detail
from console.tui.core.data import list as data
from console.tui.core.data.list import Row
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.screens.polled import PolledList
from console.tui.source import Source
from console.tui.widgets.rows import Rows
from jobs.base.errors import QuarterdeckError
from jobs.wire.dataviews import DataVersionView
from jobs.wire.runviews import RunPage

RUNS_READ = 500
"""Runs among which the users of a version are looked for: the newest ones, and all that one call gives."""


class DataTable(Rows):
    """Left and right fold a data set that has several versions."""

    PANE = "data"
    BINDINGS = bindings("data")

    class Folded(Message):
        def __init__(self, key: str, folded: bool) -> None:
            super().__init__()
            self.key, self.folded = key, folded

    def do_data_fold(self) -> None:
        self._fold(True)

    def do_data_unfold(self) -> None:
        self._fold(False)

    def _fold(self, folded: bool) -> None:
        if self.cursor_key is not None:
            self.post_message(self.Folded(self.cursor_key, folded))


class DataScreen(PolledList[Row]):
    NAME = "Data"
    SCOPE = "data"
    TOPIC = "data sets"
    ORDER = "data"
    TABLE = DataTable
    COLUMNS = data.COLUMNS
    EXAMPLE = "name:digits user:mira versions>3 rows>1000 text"
    EVERY = 5.0
    BINDINGS = bindings("data")

    def __init__(self) -> None:
        super().__init__()
        self._unfolded: frozenset[str] = frozenset()  # names of data sets

    def parse(self, text: str) -> Filter[Row]:
        return data.data_filter(text)

    def call(self) -> Callable[[], list[Row]]:
        source, unfolded = self.deck.source, self._unfolded
        return lambda: _read(source, unfolded)

    def key_of(self, row: Row) -> str:
        return row.id

    def keys(self) -> list[str]:
        return data.rows(self._known, self._filter, self._order)

    def counts(self) -> tuple[int, int]:
        newest = {key for key, row in self._known.items() if row.newest}
        return len(newest.intersection(self._keys)), len(newest)

    def summary(self) -> Line:
        return data.totals(self._known)

    def lesson(self) -> list[Line]:
        return [
            line((" A data set has versions: files identified by their content, which never", "dim")),
            line((" change. A job names the versions that it reads; tables are profiled.", "dim")),
            BLANK,
            line("   ", ("qd data add NAME PATH", "key"), ("   makes a version", "dim")),
            line("   ", ("data: {train: NAME@1}", "key"), ("   in a job's file reads it", "dim")),
        ]  # fmt: skip

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        what, _, ref = key.partition(" ")
        if not ref:
            super().fetched(key, value, error)
        elif error is not None:
            self.deck.tell(f"{ref}: {error.message}. {error.hint}".strip(), severity="error")
        elif what == "detail":
            self._describe(*value)
        else:
            sides, files = value
            glyphs = self.deck.glyphs
            self.deck.page(
                f"data {ref}", lambda width: detail.diff_lines(sides, files, width, glyphs)
            )

    def _describe(self, view: Any, page: RunPage) -> None:
        runs, looked_at = detail.users_of(page["runs"], view["id"]), len(page["runs"])
        more, glyphs = page["next"] is not None, self.deck.glyphs
        self.deck.page(
            f"data {view['id']}",
            lambda width: detail.detail_lines(view, runs, looked_at, more, width, glyphs),
            (runs[0]["job"], lambda: self.deck.open_job(runs[0]["job"])) if runs else None,
        )

    # What a person does.

    @on(DataTable.Folded)
    def _folded(self, message: DataTable.Folded) -> None:
        row = self._known.get(message.key)
        if row is None:
            return
        name = row.view["name"]
        if not row.newest:
            if message.folded:  # from within: up to the newest, which folds next
                newest = next(
                    k for k, r in self._known.items() if r.newest and r.view["name"] == name
                )
                self.rows.select(newest)
            return
        if row.folded is not None and row.folded != message.folded:
            self._unfolded ^= {name}
            self._ask()

    @on(Rows.Opened)
    def _opened(self, message: Rows.Opened) -> None:
        source, ref = self.deck.source, message.key
        self.deck.fetch(f"detail {ref}", lambda: (source.data_version(ref), source.runs(RUNS_READ)))

    def do_data_diff(self) -> None:
        two = data.before(self.picked(), self._known)
        if isinstance(two, str):
            self.deck.tell(two, severity="warning")
            return
        source, (old, new) = self.deck.source, two
        self.deck.fetch(
            f"diff {old} {new}",
            lambda: (
                (source.data_version(old), source.data_version(new)),
                (source.data_files(old), source.data_files(new)),
            ),
        )


def _read(source: Source, unfolded: frozenset[str]) -> list[Row]:
    newest = source.data()
    older: dict[str, list[DataVersionView]] = {
        view["name"]: source.data_versions(view["name"])
        for view in newest
        if view["name"] in unfolded
    }
    return data.in_rows(newest, older)
