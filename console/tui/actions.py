"""The one list of what can be done: key bindings, footer, help and palette are all made from it.

A scope is where an action works: "app" everywhere, a screen's name on that screen, a pane's name while
that pane has focus. The screen (or pane) has a method `do_<id with underscores>` for each of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from textual.binding import Binding, BindingType


@dataclass(frozen=True, slots=True)
class Action:
    """Something a person can do.

    Attributes:
        id: "job.cancel"; also the binding's id, by which a keymap may move it to other keys.
        keys: Textual key names; the first is the one that is shown.
        show: how the key is written for people.
        label: a word or two for the footer; empty keeps it out of the footer.
        help: a sentence for help and palette.
        scopes: where it works.
        changes: whether it changes the cluster; off in a read-only console.
        palette: whether the command palette offers it (moving a cursor does not belong there).
        keyed: whether the method is given the key that was pressed.
    """

    id: str
    keys: tuple[str, ...]
    show: str
    label: str
    help: str
    scopes: tuple[str, ...]
    changes: bool = False
    palette: bool = True
    keyed: bool = False

    @property
    def method(self) -> str:
        return "do_" + self.id.replace(".", "_")


JOB_SCOPES = ("jobs", "job", "queue")

ACTIONS: tuple[Action, ...] = (
    # Where to look.
    Action("go.cluster", ("1",), "1", "", "Cluster: nodes, GPUs, queue, events", ("app",)),
    Action("go.jobs", ("2",), "2", "", "Jobs: all jobs, filtered", ("app",)),
    Action("app.goto", ("colon",), ":", "go", "Go to a job, node or screen by name", ("app",)),
    Action("app.help", ("question_mark", "f1"), "?", "help", "What the keys do here", ("app",)),
    Action("app.back", ("escape",), "esc", "back", "Go back one", ("app",), palette=False),
    Action("pane.next", ("tab",), "tab", "pane", "Next pane", ("cluster", "job"), palette=False),
    Action(
        "pane.previous", ("shift+tab",), "S-tab", "", "Previous pane", ("cluster", "job"), palette=False
    ),
    # Moving, in every list, map and log.
    Action("move.down", ("j", "down"), "j k", "", "Down, up", ("lines",), palette=False),
    Action("move.up", ("k", "up"), "k", "", "", ("lines",), palette=False),
    Action("move.left", ("h", "left"), "h l", "", "Left, right", ("lines",), palette=False),
    Action("move.right", ("l", "right"), "l", "", "", ("lines",), palette=False),
    Action("move.top", ("g", "home"), "gg G", "", "Top, bottom", ("lines",), palette=False),
    Action("move.bottom", ("G", "end"), "G", "", "", ("lines",), palette=False),
    Action("move.half_down", ("ctrl+d",), "^d ^u", "", "Half a page", ("lines",), palette=False),
    Action("move.half_up", ("ctrl+u",), "^u", "", "", ("lines",), palette=False),
    Action("move.page_down", ("pagedown",), "PgDn PgUp", "", "A page", ("lines",), palette=False),
    Action("move.page_up", ("pageup",), "PgUp", "", "", ("lines",), palette=False),
    Action("row.open", ("enter",), "enter", "open", "Open what the cursor is on", ("lines",), palette=False),
    # Jobs.
    Action("jobs.filter", ("slash",), "/", "filter", "Filter: user:mira gpu>4 state:running !eval",
            ("jobs",)),
    Action("job.cancel", ("c",), "c", "cancel", "Cancel the job", JOB_SCOPES, changes=True),
    Action("job.retry",
            ("r",), "r", "retry", "Run the job again as its next attempt", JOB_SCOPES, changes=True),
    Action("job.explain", ("e",), "e", "explain", "Why it waits, or how it ended", JOB_SCOPES),
    Action("job.stacks", ("t",), "t", "stacks", "Python stacks of all ranks, equal ones together", ("job",)),
    Action("id.copy", ("y",), "y", "copy id", "Copy the id (OSC 52)", (*JOB_SCOPES, "heat", "events")),
    # A job's panes.
    Action("logs.find", ("slash",), "/", "find", "Find in the logs", ("job",)),
    Action("logs.next", ("n",), "n N", "", "Next, previous match", ("job",), palette=False),
    Action("logs.previous", ("N",), "N", "", "", ("job",), palette=False),
    Action("logs.rank_next", ("right_square_bracket",), "[ ]", "rank", "Logs of the rank before, after",
            ("job",), palette=False),
    Action("logs.rank_previous", ("left_square_bracket",), "[", "", "", ("job",), palette=False),
    Action("logs.all", ("a",), "a", "all ranks", "Logs of all ranks, merged by time", ("job",)),
    Action("logs.follow", ("f",), "f", "follow", "Follow the end of the log again", ("job",)),
    Action("metric.next", ("m",), "m", "metric", "Next metric", ("job",)),
    Action("metric.previous", ("M",), "M", "", "Previous metric", ("job",), palette=False),
    Action("ranks.pick", tuple("0123456789"), "0-9", "pick", "Logs of the rank of that number",
            ("ranks",), palette=False, keyed=True),
    # Nodes.
    Action("heat.metric", ("u",), "u", "metric", "Utilisation, memory, temperature, watts", ("heat",)),
    Action("node.drain", ("D",), "D", "drain", "Drain the node, or take it back into service",
            ("heat",), changes=True),
    # The rest.
    Action("app.palette", ("ctrl+p",), "^p", "", "Find a command", ("app",), palette=False),
    Action("app.theme", (), "^p", "", "Choose another theme", ("app",)),
    Action("app.quit", ("q", "ctrl+c"), "q", "quit", "Leave; jobs run on", ("app",)),
)  # fmt: skip


@cache
def in_scopes(scopes: tuple[str, ...]) -> tuple[Action, ...]:
    """The actions of these scopes: those of the first scope first, each in the registry's order."""
    works = [action for action in ACTIONS if set(action.scopes) & set(scopes)]
    works.sort(key=lambda action: min(scopes.index(s) for s in action.scopes if s in scopes))
    return tuple(works)


def bindings(*scopes: str) -> list[BindingType]:
    """Key bindings of the actions that belong to these scopes."""
    out: list[BindingType] = []
    for action in in_scopes(scopes):
        label = action.label or action.help
        if action.keyed:
            out += [
                Binding(
                    key, f"act('{action.id}', '{key}')", label, show=False, id=f"{action.id}.{key}"
                )
                for key in action.keys
            ]
        else:
            keys = ",".join(action.keys)
            if not keys:
                continue
            out.append(Binding(keys, f"act('{action.id}')", label, show=False, id=action.id))
    return out


def by_id(wanted: str) -> Action:
    """The action of that id; KeyError when there is none."""
    return _by_id()[wanted]


@cache
def _by_id() -> dict[str, Action]:
    return {action.id: action for action in ACTIONS}


def allowed(actions: Iterable[Action], *, read_only: bool) -> list[Action]:
    """Those that may be done at all."""
    return [action for action in actions if not (read_only and action.changes)]
