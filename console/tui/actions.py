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
        local: whether it uses files or programs of the machine that runs the console; off for a guest.
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
    local: bool = False
    keyed: bool = False

    @property
    def method(self) -> str:
        return "do_" + self.id.replace(".", "_")


JOB_SCOPES = ("table", "job", "queue")
CHARTS = ("metrics", "gpus", "util", "compare")
TABLES = ("table", "sweeps", "trials", "pipelines", "alerts")
LISTS = (*TABLES, "queue", "heat", "happenings")
SHELF = ("models", "deployments", "data")
"""Lists that are read every few seconds. What changes something there is done to one at a time."""
MARKED = (*LISTS, "files", "data")
"""Where rows can be marked."""
FLOWS = ("pipelines", "pipeline")
"""Where runs of pipelines are steered: their list, and one of them."""
PICTURES = ("race", "history", "front", "importance", "parallel", "rank", "edf", "contour")
"""The panes of a sweep's pictures."""
DRAWN = (*CHARTS, *PICTURES, "board", "heat")
"""Panes that are pictures: each can be written to a file alone."""
WITH_PANES = ("cluster", "job", "events_screen", "sweep", "pipelines_screen", "pipeline")

ACTIONS: tuple[Action, ...] = (
    # Where to look.
    Action("go.cluster", ("1",), "1", "", "Cluster: nodes, GPUs, queue, events", ("app",)),
    Action("go.jobs", ("2",), "2", "", "Jobs: all jobs, filtered", ("app",)),
    Action("go.sweeps", ("3",), "3", "", "Sweeps: searches, how far they are, their best", ("app",)),
    Action("go.models", ("4",), "4", "", "Models: versions, approvals, gates, aliases", ("app",)),
    Action("go.deployments", ("5",), "5", "", "Deployments: services, traffic, rollouts", ("app",)),
    Action("go.pipelines", ("6",), "6", "", "Pipelines: runs, their steps, schedules", ("app",)),
    Action("go.alerts", ("7",), "7", "", "Alerts: what needs somebody", ("app",)),
    Action("go.events", ("8",), "8", "", "Events: what happened, and what is wrong", ("app",)),
    Action("go.data", ("9",), "9", "", "Data: data sets, their versions, what is in them", ("app",)),
    Action("app.goto", ("colon",), ":", "go", "Go to a job, sweep, pipeline, node or screen", ("app",)),
    Action("app.help", ("question_mark", "f1"), "?", "help", "What the keys do here", ("app",)),
    Action("app.back", ("escape",), "esc", "back", "Go back one", ("app",), palette=False),
    Action("pane.next", ("tab",), "tab", "pane", "Next pane", WITH_PANES, palette=False),
    Action("pane.previous", ("shift+tab",), "S-tab", "", "Previous pane", WITH_PANES, palette=False),
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
    # Tables.
    Action("table.filter", ("slash",), "/", "filter", "Filter: user:mira gpu>4 state:running !eval",
            ("table", "happenings", "sweeps", "pipelines", "alerts", *SHELF)),
    Action("row.mark", ("space",), "space", "mark", "Mark it; actions work on all that is marked",
            MARKED, palette=False),
    Action("row.range", ("v",), "v", "", "Mark a range: once where it begins, once where it ends",
            MARKED, palette=False),
    Action("table.sort", ("s",), "s", "sort", "Sort by the next column", (*LISTS, *SHELF)),
    Action("table.turn", ("S",), "S", "", "Sort the other way round", (*LISTS, *SHELF)),
    # Jobs.
    Action(
        "jobs.new",
        ("n",),
        "n",
        "new",
        "Write a job in $EDITOR and submit it",
        ("table",),
        changes=True,
        local=True,
    ),
    Action("jobs.unfold", ("l", "right"), "h l", "", "Fold, unfold the trials of a sweep", ("table",),
            palette=False),
    Action("jobs.fold", ("h", "left"), "h", "", "", ("table",), palette=False),
    Action("jobs.columns", ("f",), "f", "columns",
            "Choose columns: parameters, metrics, tags, GPU hours, the objective's trend", ("table",)),
    Action("jobs.right", ("greater_than_sign",), "< >", "", "Columns before, after those that are shown",
            ("table",), palette=False),
    Action("jobs.left", ("less_than_sign",), "<", "", "", ("table",), palette=False),
    Action("job.cancel", ("c",), "c", "cancel", "Cancel the job", JOB_SCOPES, changes=True),
    Action("job.retry",
            ("r",), "r", "retry", "Run the job again as its next attempt", JOB_SCOPES, changes=True),
    Action("job.explain", ("x",), "x", "explain", "Why it waits, or how it ended", JOB_SCOPES),
    Action("job.origin", ("o",), "o", "", "Go to the sweep or pipeline that it belongs to", JOB_SCOPES),
    Action("jobs.compare", ("C",), "C", "compare", "Metrics of the marked jobs in one chart", ("table",)),
    Action("job.stacks", ("t",), "t", "stacks", "Python stacks of all ranks, equal ones together", ("job",)),
    Action("id.copy", ("y",), "y", "copy id", "Copy the id",
            (*JOB_SCOPES, "heat", "events", "happenings", "sweeps", *FLOWS, "alerts", *SHELF)),
    # Sweeps.
    Action("trials.filter", ("slash",), "/", "filter", "Filter: state:complete lr<0.01 value>0.9 !sgd",
            ("sweep",)),
    Action("trial.prune", ("c",), "c", "prune", "Prune the trial, or all that are marked", ("sweep",),
            changes=True),
    Action("sweep.extend", ("e",), "e", "extend", "More trials, time or GPU hours", ("sweep",), changes=True),
    Action("sweep.add", ("a",), "a", "add", "Add a point to try next, from the trial's", ("sweep",),
            changes=True),
    Action("sweep.pause", ("P",), "P", "pause", "Pause the sweep, or go on with it", ("sweeps", "sweep"),
            changes=True),
    Action("sweep.stop", ("X",), "X", "stop", "Stop the sweep and its open trials", ("sweeps", "sweep"),
            changes=True),
    Action("trial.rerun", ("r",), "r", "again", "Run the trial's point again", ("sweep",), changes=True),
    Action("trial.pin", ("i",), "i", "pin", "Keep the pruner away from the trial, or let it again",
            ("sweep",), changes=True),
    Action("sweep.parallel", ("N",), "N", "", "How many trials at a time", ("sweep",), changes=True),
    Action("pane.full", ("z",), "z", "full", "The pane alone on the screen, or all again", ("sweep",)),
    Action("params.copy", ("y",), "y", "copy", "Copy the trial's parameters, as JSON", ("sweep",)),
    Action("sweep.save", ("w",), "w", "save", "Save all trials to a CSV file", ("sweep",), local=True),
    Action("sweep.replay", ("R",), "R", "replay", "See the sweep happen again, or the present", ("sweep",)),
    Action("replay.on", ("right_square_bracket",), "[ ]", "", "Back, on in the replay", ("sweep",),
            palette=False),
    Action("replay.back", ("left_square_bracket",), "[", "", "", ("sweep",), palette=False),
    Action("sweep.log", ("L",), "L", "", "Logarithmic values", ("sweep",)),
    Action("sweep.axis", ("T",), "T", "", "History by trial, or by time", ("sweep",)),
    Action("sweep.zoom_in", ("plus", "equals_sign"), "+ -", "zoom", "Zoom in on the best values, out",
            ("race", "history", "board"), palette=False),
    Action("sweep.zoom_out", ("minus",), "-", "", "", ("race", "history", "board"), palette=False),
    Action("brush.set", ("b",), "b", "brush", "Brush the axis round the trial, or take the brush away",
            ("parallel",)),
    Action("brush.wider", ("plus", "equals_sign"), "+ -", "wider", "The brush wider, narrower",
            ("parallel",), palette=False),
    Action("brush.narrower", ("minus",), "-", "", "", ("parallel",), palette=False),
    Action("brush.up", ("K",), "J K", "move", "The brush down, up", ("parallel",), palette=False),
    Action("brush.down", ("J",), "J", "", "", ("parallel",), palette=False),
    Action("brush.clear", ("backspace",), "bksp", "", "Take all brushes away", ("sweep",)),
    # Models and deployments.
    Action("model.approve", ("a",), "a", "approve", "Approve the version, by its digest and gate result",
            ("models",), changes=True),
    Action("model.reject", ("x",), "x", "reject", "Reject the version, with a reason", ("models",),
            changes=True),
    Action("rollout.promote", ("o",), "o", "promote", "Give the new version all requests now",
            ("deployments",), changes=True),
    Action("rollout.pause", ("P",), "P", "pause", "Pause the rollout, or go on with it",
            ("deployments",), changes=True),
    Action("rollout.abort", ("X",), "X", "abort", "End the rollout; the version before has all requests",
            ("deployments",), changes=True),
    Action("rollout.back", ("b",), "b", "roll back", "Give all requests back to the version before",
            ("deployments",), changes=True),
    # Data sets.
    Action("data.unfold", ("l", "right"), "h l", "", "Fold, unfold the versions of a data set", ("data",),
            palette=False),
    Action("data.fold", ("h", "left"), "h", "", "", ("data",), palette=False),
    Action("data.diff", ("C",), "C", "diff", "What differs between two marked versions, or from the last one",
            ("data",)),
    # Pipelines, schedules and alerts.
    Action("flow.cancel", ("c",), "c", "cancel", "Stop the run: cancel what runs, start nothing more",
            FLOWS, changes=True),
    Action("flow.retry", ("r",), "r", "retry", "Run again what did not succeed", FLOWS, changes=True),
    Action("schedule.pause", ("P",), "P", "pause", "Pause the schedule, or resume it", ("schedules",),
            changes=True),
    Action("schedule.fire", ("o",), "o", "run now", "Start what the schedule runs, once, now",
            ("schedules",), changes=True),
    Action("alert.ack", ("a",), "a", "ack", "Acknowledge the alert, or all that are marked", ("alerts",),
            changes=True),
    Action("alert.silence", ("m",), "m", "silence", "Tell nobody of it for a while, with a reason",
            ("alerts",), changes=True),
    Action("row.describe", ("d",), "d", "describe", "All that is known of it",
            (*JOB_SCOPES, "alerts")),
    # A job's logs.
    Action("logs.find", ("slash",), "/", "find", "Find in the logs", ("job",)),
    Action("logs.next", ("n",), "n N", "", "Next, previous match", ("job",), palette=False),
    Action("logs.previous", ("N",), "N", "", "", ("job",), palette=False),
    Action("logs.keep", ("ampersand",), "&", "keep", "Keep only lines that have a text in them", ("job",)),
    Action("logs.rank_next", ("greater_than_sign",), "< >", "rank", "Logs of the rank before, after",
            ("job",), palette=False),
    Action("logs.rank_previous", ("less_than_sign",), "<", "", "", ("job",), palette=False),
    Action("logs.minute_next", ("right_square_bracket",), "[ ]", "minute",
            "A minute back, on in the logs", ("job",), palette=False),
    Action("logs.minute_previous", ("left_square_bracket",), "[", "", "", ("job",), palette=False),
    Action("logs.all", ("a",), "a", "all ranks", "Logs of all ranks, merged by time", ("job",)),
    Action("logs.beside", ("b",), "b", "beside", "Logs of the picked rank beside those that are shown",
            ("job",)),
    Action("logs.follow", ("f",), "f", "follow", "Follow the end of the log again", ("job",)),
    Action("logs.pager", ("e",), "e", "pager", "The whole log in $PAGER", ("job",), local=True),
    Action("logs.save", ("w",), "w", "save", "Save the whole log to a file", ("job",), local=True),
    Action("line.fold", ("z",), "z", "fold",
            "Fold tracebacks and JSON lines, or show them as they were written", ("loglines",)),
    Action("line.wrap", ("S",), "S", "wrap", "Wrap long lines, or cut them at the edge", ("loglines",)),
    Action("line.range", ("v",), "v", "", "Mark a range of lines from here; j and k move its end",
            ("loglines",), palette=False),
    Action("line.copy", ("y",), "y", "copy", "Copy the line that is marked, or the range", ("loglines",)),
    Action("logs.copy", ("Y",), "Y", "", "Copy the log lines that are on screen", ("job",)),
    # A job's files.
    Action("job.files", ("F",), "F", "files", "What the job wrote, or its logs again", ("job",)),
    Action("files.unfold", ("l", "right"), "h l", "", "Fold, unfold a folder", ("files",), palette=False),
    Action("files.fold", ("h", "left"), "h", "", "", ("files",), palette=False),
    Action("files.pull", ("w",), "w", "pull", "Copy the file, folder or all that is marked to this machine",
            ("files",), local=True),
    Action("files.all", ("full_stop",), ".", "", "Show the files that the job came with, or hide them",
            ("files",)),
    Action("files.again", ("R",), "R", "", "Read the list again", ("files",)),
    # A job's charts.
    Action("metric.next", ("m",), "m", "metric", "Next metric", ("job", "compare")),
    Action("metric.previous", ("M",), "M", "", "Previous metric", ("job", "compare"), palette=False),
    Action("chart.zoom_in", ("plus", "equals_sign"), "+ -", "zoom", "Zoom in, out", ("job", *CHARTS),
            palette=False),
    Action("chart.zoom_out", ("minus",), "-", "", "", ("job", *CHARTS), palette=False),
    Action("chart.log", ("L",), "L", "", "Logarithmic y axis", ("job", "compare")),
    Action("chart.smooth", ("s",), "s", "", "Smooth the metrics: off, some, much", ("job", "compare")),
    Action("chart.axis", ("T",), "T", "", "Metrics by step, or by time", ("job", "compare")),
    Action("chart.clear", ("backspace",), "bksp", "", "Take the crosshair away",
            ("job", "compare", "util")),
    Action("ranks.pick", tuple("0123456789"), "0-9", "pick", "Logs of the rank of that number",
            ("ranks",), palette=False, keyed=True),
    # Nodes.
    Action("heat.metric", ("u",), "u", "metric", "Utilisation, memory, temperature, watts", ("heat",)),
    Action("node.drain", ("D",), "D", "drain", "Drain the node, or all that are marked, or take them back",
            ("heat",), changes=True),
    # Events.
    Action("events.level", ("u",), "u", "level", "All events, warnings and errors, or errors only",
            ("happenings",)),
    Action("events.fold", ("z",), "z", "fold", "Events that repeat as one line, or each by itself",
            ("happenings",)),
    # The rest.
    Action("pane.write", ("w",), "w", "write", "Write this pane to a file, as SVG and as text", DRAWN,
            local=True),
    Action("screen.write", ("W",), "W", "", "Write the whole screen to a file, as SVG and as text", ("app",),
            local=True),
    Action("app.freeze", ("p",), "p", "", "Freeze the picture, or let it go on", ("app",)),
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


def unshadowed(scopes: tuple[str, ...]) -> list[Action]:
    """Those of `in_scopes` that a key reaches: none whose keys all mean something nearer."""
    out: list[Action] = []
    taken: set[str] = set()
    for action in in_scopes(scopes):
        if not action.keys or not taken.issuperset(action.keys):
            out.append(action)
        taken.update(action.keys)
    return out


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
