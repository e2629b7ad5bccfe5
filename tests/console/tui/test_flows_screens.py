"""The Pipelines and Alerts screens over a fake source."""

from __future__ import annotations

import pytest
from textual.geometry import Offset

from console.tui.core.alerts import commands as saying
from console.tui.core.alerts import list as alert_list
from console.tui.core.base.commands import Command, Refusal
from console.tui.core.draw.glyphs import ASCII, UNICODE
from console.tui.core.draw.lines import plain, width
from console.tui.core.flows import commands, tree
from console.tui.core.flows.detail import step_lines
from console.tui.core.flows.schedules import detail_lines, schedule_line, upcoming
from console.tui.screens.modals import Confirm
from console.tui.screens.sweepask import Ask
from console.tui.source import _ACTS
from console.tui.widgets.marks import Marked
from jobs.base.errors import NotAllowed
from tests.console.tui import fake_flows
from tests.console.tui.fake_flows import task, tasks
from tests.console.tui.fake_views import NOW
from tests.console.tui.fakes import FakeClock, FakeSource
from tests.console.tui.pilots import press, running, screen_text, settle, text, title

SIZES = ((80, 24), (120, 36))

# Runs and schedules ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_runs_and_when_the_next_ones_start(size: tuple[int, int]) -> None:
    async with running(start="cluster", size=size) as (pilot, app):
        await press(pilot, "6")
        assert app.place == "pipelines"
        shown = screen_text(app)
        for told in ("● running", "✗ failed", "5/13", "ablate train", "hourly-check", "in 30m",
                     "paused"):  # fmt: skip
            assert told in shown, told
        assert "5 pipelines" in text(app, "head") and "2 running" in text(app, "head")
        assert title(app, "schedules") == "Schedules 3"
        assert all(len(row) == size[0] for row in shown.split("\n"))
        await press(pilot, "tab", "j", "enter")
        page = text(app, "page")
        for told in ("30 2 * * * in Europe/Berlin", "started", "p9", "skipped", "p7 is not over"):
            assert told in page, told


async def test_marked_runs_are_cancelled_after_one_question() -> None:
    source = FakeSource()
    async with running(source, start="pipelines") as (pilot, app):
        await press(pilot, "space", "space", "c")
        assert isinstance(app.screen, Confirm) and "Cancel 2 runs?" in screen_text(app)
        await press(pilot, "enter", "n")
        assert source.acts == []
        await press(pilot, "c", "y")
        assert source.acts == [("cancel run", "p9"), ("cancel run", "p8")]


async def test_schedules_are_paused_and_run_from_their_pane_only() -> None:
    source = FakeSource()
    async with running(source, start="pipelines") as (pilot, _):
        await press(pilot, "P")
        assert source.acts == []
        await press(pilot, "tab", "P", "y", "o", "y")
        assert source.acts == [("pause schedule", "hourly-check"), ("run schedule", "hourly-check")]


async def test_schedules_that_cannot_be_read_say_so() -> None:
    source, clock = FakeSource(), FakeClock()
    async with running(source, start="pipelines", clock=clock) as (pilot, app):
        source.down = NotAllowed("viewers may not see schedules")
        clock.advance(6)
        await settle(pilot)
        assert "hourly-check" in text(app, "schedules")
        assert "not read again: viewers may not see schedules" in title(app, "schedules")


# One run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_the_graph_is_a_tree_with_what_each_step_waits_for(size: tuple[int, int]) -> None:
    async with running(start="pipelines", size=size) as (pilot, app):
        await press(pilot, "enter")
        assert app.place == "p9"
        steps = text(app, "steps")
        for told in ("features", "↺ cached", "from p5", "waits for train", "[lr=0.03]", "✗ failed",
                     "j431: needs 8 GPUs"):  # fmt: skip
            assert told in steps, told
        assert "1 cached" in text(app, "summary") and "5 of 13 steps done" in text(app, "summary")
        await press(pilot, "escape")
        assert app.place == "pipelines"


async def test_the_log_is_that_of_the_step_under_the_cursor() -> None:
    source = FakeSource()
    async with running(source, start="p9") as (pilot, app):
        assert "writes no log" in text(app, "logs")
        await press(pilot, "j")
        assert title(app, "logs").startswith("j397 Logs all ranks")
        await press(pilot, "j")
        assert "opens s3" in text(app, "logs")
        await press(pilot, "j")
        assert title(app, "logs").startswith("j412 Logs all ranks")
        assert "step 9011" in text(app, "logs")
        assert "j412 running on n02, n03" in text(app, "step")
        await press(pilot, "enter")
        assert app.place == "j412"
        await press(pilot, "escape")
        assert app.place == "p9" and "step 9011" in text(app, "logs")
        await press(pilot, "k", "enter")
        assert app.place == "s3"
        await press(pilot, "escape")
        await press(pilot, "G", "k")
        await settle(
            pilot
        )  # which rank failed first comes with the job, and then its log is asked for
        assert title(app, "logs").startswith("j407 Logs r9"), "the rank that failed first"


async def test_a_step_with_several_runs_folds() -> None:
    async with running(start="p9") as (pilot, app):
        await press(pilot, "G", "h")
        assert "[lr=" not in text(app, "steps") and "3 runs" in text(app, "step")
        await press(pilot, "enter")
        assert "[lr=0.1]" in text(app, "steps")


async def test_a_run_is_steered_and_goes_on_while_it_is_watched() -> None:
    source = FakeSource()
    async with running(source, start="p9") as (pilot, app):
        await press(pilot, "r")
        assert "Only a run that failed" in screen_text(app)
        source.put("pipeline:p9", "train/0", task("train", "SUCCEEDED", "features", job="j412"))
        await settle(pilot)
        assert "waits for its turn" in text(app, "steps")
        await press(pilot, "c")
        assert "6 steps will not start" in screen_text(app)
        await press(pilot, "y")
        assert source.acts == [("cancel run", "p9")]


async def test_a_run_that_is_not_there_says_so() -> None:
    async with running(start="p77") as (_, app):
        assert "there is no pipeline p77" in text(app, "summary")


def test_ten_thousand_runs_of_a_step_are_one_line_until_they_are_unfolded() -> None:
    many = [task("fan", "SUCCEEDED", number=n, matrix={"n": n}) for n in range(10_000)]
    assert len(tree.nodes(many, set())) == 1
    assert len(tree.nodes(many, {"fan"})) == 10_001


@pytest.mark.parametrize("cells", [40, 70, 120])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_lines_keep_to_their_width_however_deep_the_graph(cells: int, glyphs: object) -> None:
    assert glyphs in (UNICODE, ASCII)
    signs = UNICODE if glyphs is UNICODE else ASCII
    chain = [task(f"step-{n}", "WAITING", f"step-{n - 1}" if n else "") for n in range(40)]
    for held in (chain, tasks(), [task("\x1b[31mred", "FAILED", reason="x " * 90)]):
        shown = tree.nodes(held, set())
        states = {one["step"]: [one] for one in held}
        room = tree.room_for(shown, cells, signs)
        lines = [tree.tree_line(one, states, {}, NOW, cells, room, signs) for one in shown]
        assert max(map(width, lines)) <= cells
        pages = [row for one in shown for row in step_lines(one, states, {}, NOW, cells, signs)]
        assert max(map(width, pages)) <= cells + 12
        assert "\x1b" not in "".join(plain(row) for row in (*lines, *pages))
    last = tree.nodes(chain, set())[-1]
    assert "step-39" in plain(tree.tree_line(last, {}, {}, NOW, 70, 29, signs))


def test_runs_and_schedules_that_need_nothing_are_refused() -> None:
    runs = {one["id"]: one for one in fake_flows.runs()}
    for refused in (
        commands.cancel([runs["p5"]]),
        commands.retry([runs["p9"]]),
        commands.cancel([]),
    ):
        assert isinstance(refused, Refusal)
    made = commands.retry([runs["p7"], runs["p6"]])
    assert isinstance(made, Command) and made.targets == ("p7", "p6")
    paused, nightly, _ = fake_flows.schedules()
    assert commands.pause(paused).verb == "resume schedule"
    assert commands.pause(nightly).verb == "pause schedule"
    assert upcoming(paused, NOW) == "paused"
    assert upcoming(fake_flows.schedule("x", "y", next=[]), NOW) == "never again"
    for one in (paused, nightly):
        assert width(schedule_line(one, NOW, 78, UNICODE)) <= 78
        assert max(map(width, detail_lines(one, NOW, 70, UNICODE))) <= 70


# Alerts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_what_needs_somebody_comes_first(size: tuple[int, int]) -> None:
    async with running(start="cluster", size=size) as (pilot, app):
        await press(pilot, "7")
        assert app.place == "alerts" and "3 firing" in text(app, "head")
        states = [row.split()[1] for row in text(app, "table").split("\n")]
        assert states[1:] == ["firing", "firing", "pending", "acked", "silenced", "resolved"]
        assert "node n28" in text(app, "table").split("\n")[0]


@pytest.mark.parametrize(
    ("row", "place"), [(1, "j412"), (0, "cluster"), (2, "jobs"), (5, "pipelines")]
)
async def test_enter_goes_to_what_it_is_about(row: int, place: str) -> None:
    async with running(start="alerts") as (pilot, app):
        await press(pilot, *"j" * row, "enter")
        assert app.place == place


async def test_what_has_no_place_is_described() -> None:
    async with running(start="alerts") as (pilot, app):
        await press(pilot, "j", "j", "j", "enter")
        assert "8 % of /var/lib/quarterdeck is free" in text(app, "page")
        await press(pilot, "escape", "j", "d")
        assert "replaced on Tuesday" in text(app, "page")


async def test_marked_alerts_are_acknowledged_with_a_reason() -> None:
    source = FakeSource()
    async with running(source, start="alerts") as (pilot, app):
        await press(pilot, "space", "space", "a")
        assert isinstance(app.screen, Ask)
        await press(pilot, *"on it", "enter", "y")
        assert source.acts == [
            ("acknowledge", "node_lost node n28"),
            ("acknowledge", "job_stalled j412"),
        ]
        assert source.bodies[1] == {"rule": "job_stalled", "subject": "j412", "reason": "on it"}


async def test_a_silence_wants_a_time_and_a_reason() -> None:
    source = FakeSource()
    async with running(source, start="alerts") as (pilot, app):
        await press(pilot, "m", "enter")
        assert isinstance(app.screen, Ask) and "Give a reason" in screen_text(app)
        await press(pilot, *"new switch", "enter")
        assert "Silence 1 alert for 1h00?" in screen_text(app)
        await press(pilot, "y")
        assert source.bodies == [
            {"rule": "node_lost", "subject": "node n28", "seconds": 3600.0, "reason": "new switch"}
        ]


def test_a_silence_means_its_alert_and_no_pattern() -> None:
    made = saying.silence([fake_flows.alert("r", "a[1]*", "t")], "1h30m x")
    assert isinstance(made, Command) and made.bodies is not None
    assert made.bodies["r a[1]*"]["subject"] == "a[[]1][*]"
    assert made.bodies["r a[1]*"]["seconds"] == 5400.0
    for typed in ("", "soon x", "0 x", "1h", "400d x"):
        assert isinstance(saying.silence([fake_flows.alert("r", "s", "t")], typed), Refusal), typed
    over = fake_flows.alert("r", "s", "t", "RESOLVED")
    assert isinstance(saying.acknowledge([over], ""), Refusal)
    assert made.verb in _ACTS and "acknowledge" in _ACTS


def test_where_an_alert_leads() -> None:
    told = {
        "j12.3": ("job", "j12"), "s4": ("sweep", "s4"), "p5": ("pipeline", "p5"),
        "node n1": ("node", "n1"), "schedule x": ("screen", "pipelines"), "the head's disk": None,
    }  # fmt: skip
    for subject, place in told.items():
        found = alert_list.about(fake_flows.alert("r", subject, "t"))
        assert (found and (found.kind, found.name)) == place


async def test_the_names_of_the_screens_can_be_clicked() -> None:
    async with running(start="cluster") as (pilot, app):
        for name in ("Alerts", "Pipelines", "Jobs"):
            x = text(app, "header").index(f"·{name}") + 2
            await pilot.click(offset=Offset(x, 0))
            await settle(pilot)
            assert app.place == name.lower()


@pytest.mark.parametrize(
    ("start", "keys", "labels"),
    [("alerts", "am", (" ack ", "silence")), ("pipelines", "cr", ("cancel", "retry"))],
)
async def test_a_read_only_console_changes_nothing(
    start: str, keys: str, labels: tuple[str, ...]
) -> None:
    source = FakeSource()
    async with running(source, start=start, read_only=True) as (pilot, app):
        assert not any(label in text(app, "footer") for label in labels)
        for key in keys:
            await press(pilot, key)
            assert not isinstance(app.screen, (Ask, Confirm))


@pytest.mark.parametrize("start", ["alerts", "pipelines"])
async def test_an_empty_list_teaches(start: str) -> None:
    async with running(FakeSource(empty=True), start=start) as (_, app):
        assert "qd " in text(app, "table")


@pytest.mark.parametrize(("place", "pane"), [("s4", "table"), ("p9", "steps")])
async def test_a_cursor_stays_while_another_screen_is_on_top(place: str, pane: str) -> None:
    async with running(FakeSource(), start=place) as (pilot, app):
        await press(pilot, "j", "j", "j")
        held = app.screen.query_one(f"#{pane}", Marked).cursor_key
        await press(pilot, "enter")
        assert app.place != place
        await press(pilot, "escape")
        assert app.place == place
        assert app.screen.query_one(f"#{pane}", Marked).cursor_key == held
