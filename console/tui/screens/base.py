"""The frame that every screen hangs in: header with badge, body, footer with the keys that work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, ClassVar

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.css.query import NoMatches
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widget import Widget

from console.tui import actions
from console.tui.core.base import bars
from console.tui.core.base.commands import Command, Refusal
from console.tui.core.base.world import World
from console.tui.core.draw.lines import Line, titled
from console.tui.dispatch import Acts, perform
from console.tui.widgets.lines import LineView
from console.tui.widgets.panel import Panel
from jobs.base.errors import QuarterdeckError

COMPACT_WIDTH = 110
COMPACT_HEIGHT = 30
"""Below either, panes beside each other would be too small to read: they become tabs."""

SHORT = 3
"""Letters of a tab's name where all names have no room."""

TITLE_LEFT = 1
"""Cells from the edge of a pane to its title."""


class Frame(Acts, Screen[None]):
    """A full screen.

    Attributes:
        NAME: as the header and the breadcrumbs say it.
        SCOPE: its scope in the action registry.
        TOPICS: what it watches beyond jobs and events, while it is on top.
        PANES: ids of panes that `tab` goes through.
        TABS: those of them that share one place when the terminal is small.
    """

    NAME: ClassVar[str] = ""
    SCOPE: ClassVar[str] = ""
    TOPICS: ClassVar[tuple[str, ...]] = ()
    PANES: ClassVar[tuple[str, ...]] = ()
    TABS: ClassVar[tuple[str, ...]] = ()

    _serials = count(1)

    def __init__(self) -> None:
        super().__init__()
        self.serial = next(self._serials)  # names this screen in the keys of its fetches
        self.compact = False
        self._recent: list[str] = []  # panes that were opened, the newest last
        self._titles: dict[str, str] = {}

    @property
    def place(self) -> str:
        """Its name for `Navigation.open_place`, where its kind does not say it all."""
        return ""

    @property
    def pending(self) -> bool:
        """Whether it will draw something by itself in a moment."""
        return False

    @property
    def topics(self) -> tuple[str, ...]:
        return self.TOPICS

    def compose(self) -> ComposeResult:
        yield Panel(self._header, id="header", focusable=False)
        yield from self.body()
        yield Panel(self._footer, id="footer", focusable=False)

    # What a screen says.

    def body(self) -> Iterable[Widget]:
        raise NotImplementedError

    def crumbs(self) -> tuple[str, ...]:
        return (self.NAME,)

    def show(self, world: World) -> None:
        """A new picture: update what is shown. Called at most ten times a second, only on top."""

    def tick(self) -> None:
        """A second has passed: ask for what has to be asked for. Only on top."""

    def fetched(self, key: str, value: Any, error: QuarterdeckError | None) -> None:
        """An answer to `deck.fetch`."""

    def acted(self) -> None:
        """Something was changed from here: what was asked for may be different by now."""

    # The frame.

    def _header(self, width: int, height: int) -> list[Line]:
        deck = self.deck
        return [
            bars.header(
                self.crumbs(),
                deck.SCREEN_KEYS,
                self.NAME,
                deck.world.link,
                deck.clock.mono(),
                width,
                deck.glyphs,
                read_only=deck.read_only,
                frozen=deck.frozen,
                alerts=deck.alerts,
                host=deck.host,
                maintenance=deck.maintenance_left,
            )
        ]

    def _footer(self, width: int, height: int) -> list[Line]:
        return [bars.footer(self._footer_keys(), width, self.deck.glyphs.ellipsis)]

    def _footer_actions(self) -> list[actions.Action]:
        works = actions.allowed(actions.unshadowed(self.scopes()), read_only=self.deck.read_only)
        return [action for action in works if action.label]

    def _footer_keys(self) -> list[tuple[str, str]]:
        shown = self.deck.keymap.show
        return [(shown(action), action.label) for action in self._footer_actions()]

    def on_click(self, event: events.Click) -> None:
        """A click on a screen's name opens it; one on a key of the footer does what the key does; one on
        a tab's name opens the tab."""
        if event.screen_y == 0:
            header = self._header(self.size.width, 1)[0]
            if (name := bars.header_at(header, self.deck.SCREEN_KEYS, event.screen_x)) is not None:
                self.deck.open_place(name.lower())
            return
        if event.screen_y != self.size.height - 1:
            if (name := self._tab_at(event.screen_x, event.screen_y)) is not None:
                self.focus_pane(name)
            return
        index = bars.footer_at(
            self._footer_keys(), self.size.width, event.screen_x, self.deck.glyphs.ellipsis
        )
        if index is not None:
            action = self._footer_actions()[index]
            perform(self.focused or self, action.id, *(action.keys[:1] if action.keyed else ()))

    def scopes(self) -> tuple[str, ...]:
        """Scopes that work now: of the focused pane, of the screen, of the app."""
        focused = self.focused
        pane = (focused.PANE,) if isinstance(focused, LineView) and focused.PANE else ()
        lines = ("lines",) if isinstance(focused, LineView) else ()
        return (*pane, self.SCOPE, *lines, "app")

    @property
    def alive(self) -> bool:
        """Whether its widgets are there. A message may come before they are, and one that was on its
        way comes when they are gone again."""
        return self.is_mounted and self.display and self.app.is_running

    def redraw_frame(self) -> None:
        if self.alive:
            for name in ("#header", "#footer"):
                self.query_one(name, Panel).redraw()

    def on_screen_resume(self) -> None:
        self.deck.screen_changed()  # which takes a new picture, and shows it

    def on_descendant_focus(self) -> None:
        for pane in self.panes():
            if (widget := self.pane(pane)) is not None and widget.has_focus_within:
                self.open_tab(pane)
        self.redraw_frame()

    def refresh_all(self) -> None:
        """Redraw from what is known; also for ages, once a second."""
        if self.alive:
            self.redraw_frame()
            self.show(self.deck.world)
            if not self.deck.opened and self.query_one("#header").size:
                self.deck.open()
                self._compositor_refresh()

    def _compositor_refresh(self) -> None:
        """Textual paints a screen two or three times while it lays it out, each time all cells, before
        there is a word to read. The first picture waits for words."""
        if self.deck.opened:
            super()._compositor_refresh()

    # Panes.

    def pane(self, name: str) -> Widget | None:
        try:
            return self.query_one(f"#{name}")
        except NoMatches:
            return None

    def on_resize(self) -> None:
        size = self.size
        self.compact = size.width < COMPACT_WIDTH or size.height < COMPACT_HEIGHT
        self.set_class(self.compact, "-compact")
        self.set_class(size.width >= 180, "-wide")
        self._lay_out_tabs()

    def panes(self) -> tuple[str, ...]:
        """The panes that there are now."""
        return self.PANES

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Panes that share one place at this size: tabs, of which one is open."""
        return (self.TABS,) if self.compact and self.TABS else ()

    def _group(self, name: str) -> tuple[str, ...]:
        """The panes that a pane shares its place with, itself among them."""
        return next((group for group in self.groups() if name in group), (name,))

    def _open_in(self, group: Sequence[str]) -> str:
        """The open one of a group: the last that was opened, at first the first."""
        return next((name for name in reversed(self._recent) if name in group), group[0])

    def open_tab(self, name: str) -> None:
        """Show a pane that shares its place with others."""
        if name not in self.panes():
            return
        before = self._open_in(self._group(name))
        self._recent = [*(pane for pane in self._recent if pane != name), name]
        if before != name:
            self._lay_out_tabs()

    def _lay_out_tabs(self) -> None:
        for name in self.TABS:
            widget = self.pane(name)
            if widget is not None:
                widget.display = name in self.panes() and self._open_in(self._group(name)) == name
                self._write_title(name)
        for column in self.query(".column"):
            inside = list(column.query(LineView))
            column.display = any(_shown(child, column) for child in inside)
            opened = {self._open_in(group) for group in self.groups()}
            self.set_class(any(c.id in opened for c in inside), f"-tab-{column.id}")
        self.call_after_refresh(self.refresh_all)

    def set_title(self, name: str, title: str) -> None:
        """Name a pane; in a small terminal the tabs' names stand side by side on the open one."""
        if self._titles.get(name) != title:
            self._titles[name] = title
            self._write_title(self._open_in(self._group(name)))

    def _write_title(self, name: str) -> None:
        widget = self.pane(name)
        if widget is None:
            return
        group = self._group(name)
        if len(group) > 1:
            parts = [
                f"[b]{label}[/b]" if tab == name else f"[not b]{label}[/]"
                for tab, label in zip(group, self._labels(name), strict=True)
            ]
            widget.border_title = self._between.join(parts)
        else:
            widget.border_title = titled(self._titles.get(name, name))

    @property
    def _between(self) -> str:
        return f" {self.deck.glyphs.bar} "

    def _labels(self, name: str) -> list[str]:
        """What stands for each tab of a group on the open one: its whole title, of the others a word, or the
        beginning of one where all words have no room."""
        group, own = self._group(name), titled(self._titles.get(name, name))
        words = {tab: tab.title() for tab in group} | {name: own}
        # One that has just been opened has no size yet; all of a group have the same.
        panes = [widget for tab in group if (widget := self.pane(tab)) is not None]
        room = max((pane.size.width for pane in panes), default=0) - 2 * TITLE_LEFT
        needed = sum(map(cell_len, words.values())) + len(self._between) * (len(group) - 1)
        if 0 < room < needed:
            words = {tab: tab.title()[:SHORT] for tab in group} | {name: own}
        return [*words.values()]

    def _tab_at(self, x: int, y: int) -> str | None:
        """The tab whose name is drawn at a cell of the screen."""
        for group in self.groups():
            name = self._open_in(group)
            widget = self.pane(name)
            if widget is None or widget.region.y != y or not widget.region.contains(x, y):
                continue
            left = widget.region.x + TITLE_LEFT
            for tab, label in zip(group, self._labels(name), strict=True):
                if left <= x < left + cell_len(label):
                    return tab
                left += cell_len(label) + len(self._between)
        return None

    def do_pane_next(self) -> None:
        self._cycle(1)

    def do_pane_previous(self) -> None:
        self._cycle(-1)

    def _cycle(self, by: int) -> None:
        names = [name for name in self.panes() if self._reachable(name)]
        if not names:
            return
        at = next((i for i, n in enumerate(names) if self._target(n) is self.focused), -by)
        self.focus_pane(names[(at + by) % len(names)])

    def focus_pane(self, name: str) -> None:
        self.open_tab(name)
        widget = self._target(name)
        if widget is not None:
            widget.focus()

    def _reachable(self, name: str) -> bool:
        """Whether a pane can be seen once it has the focus: a tab is opened then, what is hidden is not."""
        widget = self._target(name)
        if widget is None:
            return False
        if len(self._group(name)) > 1:
            return True
        return all(node.display for node in widget.ancestors_with_self if isinstance(node, Widget))

    def _target(self, name: str) -> Widget | None:
        """What takes the focus in a pane."""
        widget = self.pane(name)
        if widget is None or widget.can_focus:
            return widget
        return next((view for view in widget.query(LineView) if view.can_focus), None)

    # Changing things.

    def propose(self, proposal: Command | Refusal | None) -> None:
        """Ask in words before anything is changed."""
        if isinstance(proposal, Refusal):
            self.deck.tell(proposal.why, severity="warning")
        elif proposal is not None:
            self.deck.confirm(proposal)


def _shown(widget: Widget, within: Widget) -> bool:
    """Whether neither it nor what it is in is hidden, up to a container."""
    node: DOMNode | None = widget
    while isinstance(node, Widget) and node is not within:
        if not node.display:
            return False
        node = node.parent
    return True
