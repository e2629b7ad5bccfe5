"""What opens over a screen: a question, a page of text, help, and the `:` prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from console.tui import actions
from console.tui.core.base.commands import Command
from console.tui.core.base.world import World
from console.tui.core.cluster.goto import Place, complete
from console.tui.core.draw.lines import BLANK, Line, fit, line, titled, wrap
from console.tui.dispatch import Aboard, perform
from console.tui.keymap import Keymap
from console.tui.widgets.panel import Panel
from console.tui.widgets.prompt import Entry
from console.tui.widgets.rows import Rows

Answer = TypeVar("Answer")


class Modal(Aboard, ModalScreen[Answer], Generic[Answer]):
    """A box over the screen below, which stays visible. Escape closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss_empty", show=False)]

    def action_dismiss_empty(self) -> None:
        self.dismiss(None)


class Typed(Modal[Answer]):
    """A box with a line to type into. What is typed in a breath with the key that opens it goes there."""

    def __init__(self) -> None:
        super().__init__()
        self._early: list[events.Key] | None = []

    def wait(self, event: events.Key) -> bool:
        """Keep a key that came before there is a line to type into; False when there is one."""
        if self._early is None:
            return False
        self._early.append(event)
        return True

    def begin(self, entry: Input) -> None:
        """The line is there: give it the focus, and what was typed meanwhile."""
        self.set_focus(entry)
        for event in self._early or ():
            entry._forward_event(event)
        self._early = None


class Confirm(Modal[bool]):
    """Asks before something is changed, and says what will happen. Enter is no answer: it may have been
    meant for what stood there a moment before."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", show=False),
        Binding("n,escape,q", "answer(False)", show=False),
    ]

    def __init__(self, command: Command) -> None:
        super().__init__()
        self._command = command

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Panel(self._lines, id="question", focusable=False)

    def on_mount(self) -> None:
        width = min(72, self.app.size.width - 4)
        box = self.query_one(".box")
        box.styles.width = width
        box.styles.height = len(self._lines(width - 4, 0)) + 2
        box.border_title = titled(self._command.verb)

    def _lines(self, width: int, height: int) -> list[Line]:
        dot = self.deck.glyphs.dot
        tone = "error" if self._command.dangerous else "strong"
        out = [line((text, tone)) for text in wrap(self._command.question, width)]
        out.append(BLANK)
        for effect in self._command.effects:
            for index, text in enumerate(wrap(effect, width - 2)):
                out.append(line((f"{dot} " if index == 0 else "  ", "dim"), text))
        out.append(BLANK)
        out.append(line(("y", "key"), " yes, do it    ", ("n", "key"), " no"))
        return out

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class Page(Modal[None]):
    """A page of lines that scrolls: explanations, stacks, help."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark", "dismiss_empty", show=False),
        Binding("o", "jump", show=False),
        Binding("W", "write", show=False),
    ]

    def __init__(
        self,
        title: str,
        build: Callable[[int], Sequence[Line]],
        jump: tuple[str, Callable[[], object]] | None = None,
    ) -> None:
        super().__init__()
        self._title = title
        self._build = build
        self._jump = jump  # where `o` goes, by name, and how

    def action_jump(self) -> None:
        if self._jump is not None:
            self.dismiss(None)
            self.call_later(self._jump[1])

    def action_write(self) -> None:
        """Write the page, as it is on the screen, to a file."""
        perform(self, "screen.write")

    def compose(self) -> ComposeResult:
        with Vertical(classes="box page"):
            yield Panel(lambda width, height: self._build(width), id="page")

    def on_mount(self) -> None:
        self.query_one(".box").border_title = titled(self._title)
        goes = f"o opens {titled(self._jump[0])}, " if self._jump else ""
        self.query_one(".box").border_subtitle = f"{goes}esc closes"


def help_lines(scopes: Sequence[str], keymap: Keymap, width: int, *, read_only: bool) -> list[Line]:
    """What the keys do where the help was asked for: made from the registry, like everything."""
    names = {
        "app": "Everywhere",
        "lines": "In lists and logs",
        "cluster": "Cluster",
        "heat": "Heat map",
        "queue": "Queue",
        "events": "Events",
        "ranks": "Ranks",
        "table": "Jobs",
        "sweeps": "Sweeps",
        "sweep": "Sweep",
        "trials": "Trials",
        "models": "Models",
        "deployments": "Deployments",
        "data": "Data",
        "pipelines": "Pipelines",
        "pipelines_screen": "Pipelines",
        "schedules": "Schedules",
        "pipeline": "Pipeline",
        "steps": "Steps",
        "alerts": "Alerts",
        "board": "Board",
        "race": "Race",
        "history": "History",
        "parallel": "Parallel coordinates",
        "rank": "Rank",
        "contour": "Contour",
        "edf": "EDF",
        "job": "Job",
        "loglines": "Log lines",
        "files": "Files",
        "metrics": "Metrics",
        "gpus": "GPUs",
        "util": "Utilisation",
        "compare": "Compare",
        "happenings": "Events",
    }
    out: list[Line] = []
    for scope in scopes:
        if not actions.in_scopes((scope,)):
            continue
        out.append(line((names.get(scope, scope.title()), "strong")))
        for action in actions.in_scopes((scope,)):
            if action.help:
                off = read_only and action.changes
                told = action.help + ("  (off: read-only)" if off else "")
                for index, part in enumerate(wrap(told, width - 12)):
                    key = fit(keymap.show(action), 10) if index == 0 else " " * 10
                    out.append(
                        line(("  " + key, "dim" if off else "key"), (part, "dim" if off else ""))
                    )
        out.append(BLANK)
    return out


class Goto(Typed[Place]):
    """`:` goes to a job, a sweep, a pipeline, a node or a screen by name, with completion."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,ctrl+n", "move(1)", show=False, priority=True),
        Binding("up,ctrl+p", "move(-1)", show=False, priority=True),
        Binding("tab", "complete", show=False, priority=True),
    ]

    def __init__(self, world: World, screens: Sequence[str]) -> None:
        super().__init__()
        self._world = world
        self._screens = screens
        self._places: dict[str, Place] = {}

    def compose(self) -> ComposeResult:
        with Vertical(classes="box goto"):
            yield Entry(": job, sweep, pipeline, node or screen", id="entry")
            yield Rows(self._row, id="places")

    def on_mount(self) -> None:
        self.begin(self.query_one(Entry))
        self.query_one("#places").can_focus = False
        self.query_one(".box").border_title = "go to"
        self._refill("")

    def _row(self, key: str, width: int) -> Line:
        place = self._places[key]
        return line(
            " ",
            (fit(place.name, 14), "strong"),
            (fit(place.kind, 9), "dim"),
            fit(place.about, width - 24),
        )

    def _refill(self, text: str) -> None:
        self._places = {p.key: p for p in complete(text, self._world, self._screens)}
        empty = [line((" nothing has this name", "dim"))]
        self.query_one(Rows).set_keys(list(self._places), empty)

    @on(Input.Changed)
    def _typed(self, message: Input.Changed) -> None:
        self._refill(message.value)

    @on(Input.Submitted)
    @on(Rows.Opened)
    def _chosen(self) -> None:
        key = self.query_one(Rows).cursor_key
        if key is not None:
            self.dismiss(self._places[key])

    def action_move(self, by: int) -> None:
        self.query_one(Rows).step(by)

    def action_complete(self) -> None:
        key = self.query_one(Rows).cursor_key
        if key is not None:
            entry = self.query_one(Input)
            entry.value = self._places[key].name
            entry.cursor_position = len(entry.value)
