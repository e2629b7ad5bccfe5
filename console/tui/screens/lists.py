"""What lists share: a filter that narrows while one types, an order that is remembered, marks, and heads
that sort when they are clicked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from textual import events, on
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from console.tui.core.base import table
from console.tui.core.base.filter import Filter
from console.tui.core.base.order import Order
from console.tui.core.base.table import Column
from console.tui.core.base.world import World
from console.tui.core.draw.format import counted
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.screens.base import Frame
from console.tui.widgets.marks import Marked
from console.tui.widgets.panel import Panel
from console.tui.widgets.prompt import Prompt
from console.tui.widgets.rows import Rows

Row = TypeVar("Row")


class Head(Panel):
    """The names of a table's columns, on its last line."""

    class Clicked(Message):
        """The names were clicked, at cell `x`."""

        def __init__(self, x: int) -> None:
            super().__init__()
            self.x = x

    def on_click(self, event: events.Click) -> None:
        if event.y == self.size.height - 1:
            self.post_message(self.Clicked(event.x))


class Sifted(Frame):
    """A screen with a list: some of its rows, in some order.

    Attributes:
        ORDER: the field of the session that keeps the order.
    """

    ORDER: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self._filter: Filter[Any] = self.parse("")
        self._order = Order()

    # What a list says of itself.

    @property
    def rows(self) -> Rows:
        raise NotImplementedError

    def parse(self, text: str) -> Filter[Any]:
        """The filter that was typed."""
        raise NotImplementedError

    def laid_out(self) -> Sequence[tuple[Column[Any], int]]:
        """The columns as they are drawn; none where nobody can click them."""
        return ()

    def sortable(self) -> Sequence[str]:
        """The columns that it can be sorted by."""
        raise NotImplementedError

    def sift(self) -> None:
        """Show what the filter and the order make of the rows now."""
        self.show(self.deck.world)

    def return_focus(self) -> None:
        """Give the focus back to the list."""
        self.rows.focus()

    # Filter.

    def do_table_filter(self) -> None:
        self.query_one(Prompt).open(self._filter.text)

    @on(Input.Changed)
    def _typed(self, message: Input.Changed) -> None:
        self.set_filter(message.value)

    @on(Prompt.Closed)
    def _filter_closed(self, message: Prompt.Closed) -> None:
        if not message.kept:
            self.set_filter("")
        self.return_focus()

    def set_filter(self, text: str) -> None:
        self._filter = self.parse(text)
        self.sift()

    # Order.

    def on_mount(self) -> None:
        self._order = self.remembered()

    def remembered(self) -> Order:
        """As it was sorted when the console was last closed."""
        return Order.parse(getattr(self.deck.memory.session, self.ORDER), self.sortable())

    def do_table_sort(self) -> None:
        self._set_order(self._order.next(self.sortable()))

    def do_table_turn(self) -> None:
        self._set_order(self._order.turned())

    @on(Head.Clicked)
    def _head_clicked(self, message: Head.Clicked) -> None:
        column = table.column_at(self.laid_out(), message.x)
        if column is not None and column.order is not None:
            self._set_order(self._order.picked(column.title))

    def _set_order(self, order: Order) -> None:
        self._order = order
        self.deck.memory.note(**{self.ORDER: order.text})
        self.sift()

    # Going back.

    def narrowed(self) -> bool:
        """Take away the marks, or else the filter. False when there is neither."""
        if self.rows.marked:
            self.rows.clear_marks()
        elif self._filter.text:
            self.set_filter("")
        else:
            return False
        return True

    def do_app_back(self) -> None:
        if not self.narrowed():
            self.deck.do_app_back()


class ListScreen(Sifted, Generic[Row]):
    """A screen that is one table, with its counts and the names of its columns above it.

    Attributes:
        TOPIC: what it is a list of, as the watch and the session name it.
        TABLE, COLUMNS: the widget of its rows, and what they are made of.
        EXAMPLE: a filter that shows what can be asked for.
    """

    PANES: ClassVar[tuple[str, ...]] = ("table",)
    AUTO_FOCUS = "#table"
    TOPIC: ClassVar[str]
    TABLE: ClassVar[type[Rows]]
    COLUMNS: ClassVar[Sequence[Column[Any]]]
    EXAMPLE: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self._known: Mapping[str, Row] = {}
        self._keys: Sequence[str] = ()

    def body(self) -> Iterable[Widget]:
        yield Head(self._head, id="head", focusable=False)
        yield self.TABLE(self._row, id="table")
        yield Prompt("/", self.EXAMPLE, id="filter")

    # What a table says of itself.

    def totals(self) -> Line:
        """What all of it comes to, after the count."""
        return BLANK

    def lesson(self) -> list[Line]:
        """What belongs here, and the command that makes it."""
        raise NotImplementedError

    def counts(self) -> tuple[int, int]:
        """How many are shown, of how many."""
        return len(self._keys), len(self._known)

    # Lines out.

    @property
    def rows(self) -> Rows:
        return self.query_one(self.TABLE)

    def laid_out(self) -> Sequence[tuple[Column[Row], int]]:
        # The head has no scroll bar: both are laid out for the width that the rows have at least.
        return table.arrange(self.COLUMNS, self.size.width - 2)

    def sortable(self) -> Sequence[str]:
        return table.sortable(self.COLUMNS)

    def present(self, world: World) -> None:
        """Show the rows of `_keys`."""
        self.rows.set_keys(self._keys, self._nothing(world))
        self._redraw_head()

    def _nothing(self, world: World) -> list[Line]:
        if self.TOPIC not in world.ready:
            link = world.link
            if not link.error:
                return [line((" connecting", "dim"))]
            return [line((f" {link.error}", "error")), line((f" {link.hint}", "dim"))]
        if not self._known:
            return self.lesson()
        told = f" No {self.TOPIC.removesuffix('s')} matches the filter. "
        return [line((told, "dim"), ("esc", "key"), (" clears it.", "dim"))]

    def _head(self, width: int, height: int) -> list[Line]:
        glyphs = self.deck.glyphs
        count = counted(*self.counts(), self.TOPIC.removesuffix("s"))
        facts = [*line((f" {count}", "strong"))]
        if totals := self.totals():
            facts += [*line((f" {glyphs.dot} ", "dim")), *totals]
        if self._filter.text:
            facts += line((f" {glyphs.dot} filter {self._filter.text}", "key"))
        if self._filter.problem:
            facts += line((f" {glyphs.dot} {self._filter.problem}", "warn"))
        if marked := len(self.rows.marked):
            facts += line((f" {glyphs.dot} {marked} marked", "found"))
        return [tuple(facts), table.head(self.laid_out(), glyphs, self._order)]

    def _redraw_head(self) -> None:
        self.query_one(Head).redraw()

    def _row(self, key: str, width: int) -> Line:
        row = self._known.get(key)
        if row is None:
            return BLANK
        return table.row_line(row, self.laid_out(), self.deck.clock.wall(), self.deck.glyphs)

    # What is chosen.

    def picked(self) -> list[Row]:
        """What is marked, else what the cursor is on."""
        return [self._known[key] for key in self.rows.chosen if key in self._known]

    @on(Marked.Marks)
    def _marks_changed(self) -> None:
        self._redraw_head()

    def do_id_copy(self) -> None:
        if chosen := self.rows.chosen:
            self.deck.copy(" ".join(chosen))
