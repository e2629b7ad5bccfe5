"""The Models and Deployments screens over a fake source."""

from __future__ import annotations

import pytest

from console.tui.core.base.commands import Command, Refusal
from console.tui.core.draw.format import age
from console.tui.core.draw.glyphs import UNICODE
from console.tui.core.draw.lines import plain, width
from console.tui.core.models.commands import decide
from console.tui.core.models.detail import detail_lines
from console.tui.core.models.list import model_filter, rows
from console.tui.core.services import commands
from console.tui.core.services import detail as service_detail
from console.tui.core.services.list import COLUMNS, milliseconds, ready, share, verdict
from console.tui.core.services.monitor import Watched, monitor_lines
from console.tui.screens.modals import Confirm
from console.tui.screens.sweepask import Ask
from console.tui.source import _ACTS
from jobs.base.errors import NotAllowed, NotFound, Unreachable
from tests.console.tui import fake_models, fake_monitors
from tests.console.tui.fake_models import (
    deployment,
    deployments,
    rollout,
    scaling,
    served,
    versions,
)
from tests.console.tui.fake_views import NOW
from tests.console.tui.fakes import FakeClock, FakeSource
from tests.console.tui.pilots import press, running, screen_text, settle, text

SIZES = ((80, 24), (120, 36))

# Models ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_versions_with_what_is_said_of_them(size: tuple[int, int]) -> None:
    async with running(start="cluster", size=size) as (pilot, app):
        await press(pilot, "4")
        assert app.place == "models"
        shown = screen_text(app)
        for told in (
            "digits:4",
            "◌ pending",
            "✓ approved",
            "✗ rejected",
            "1/1",
            "accuracy",
            "produc",
        ):
            assert told in shown, told
        assert "its gate ha" in shown
        assert "5 versions" in text(app, "head") and "3 pending" in text(app, "head")
        assert all(len(row) == size[0] for row in shown.split("\n"))


async def test_metrics_are_fields_of_the_filter_and_columns_sort() -> None:
    async with running(start="models") as (pilot, app):
        await press(pilot, "slash", *"accuracy>0.97 !state:rejected", "enter")
        assert [row.split()[0].lstrip("▸") for row in text(app, "table").split("\n")] == [
            "digits:4",
            "digits:3",
        ]
        assert "2 of 5 versions" in text(app, "head")
        await press(pilot, "escape", "s", "S")
        assert "ocr:10" in text(app, "table").split("\n")[0]
        await press(pilot, "slash", *"nothing-like-it", "enter")
        assert "No version matches" in text(app, "table")


async def test_a_list_that_is_not_read_is_not_called_empty() -> None:
    source = FakeSource()
    source.down = NotAllowed("viewers may not see models", "Ask an admin.")
    async with running(source, start="models") as (pilot, app):
        shown = text(app, "table")
        assert "viewers may not see models" in shown and "Ask an admin." in shown
        assert "0 versions" not in text(app, "head")
        source.down = None
        source.versions = []
        app.clock.advance(5)  # type: ignore[attr-defined]
        await settle(pilot)
        assert "qd model register" in text(app, "table")


async def test_the_list_is_asked_for_while_it_is_on_top_and_a_failure_leaves_the_last_answer() -> (
    None
):
    source, clock = FakeSource(), FakeClock()
    async with running(source, start="models", clock=clock) as (pilot, app):
        asked = source.calls.count("models")
        await settle(pilot)
        assert source.calls.count("models") == asked
        source.versions = versions()[:1]
        clock.advance(5)
        await settle(pilot)
        assert source.calls.count("models") == asked + 1
        assert "1 version" in text(app, "head")
        source.down = NotFound("there are no models here")
        clock.advance(5)
        await settle(pilot)
        assert "digits:4" in text(app, "table")
        assert "not read again: there are no models here" in text(app, "head")
        source.down = None
        await press(pilot, "2")
        asked = source.calls.count("models")
        clock.advance(60)
        await settle(pilot)
        assert source.calls.count("models") == asked


async def test_a_frozen_list_is_not_asked_for() -> None:
    source, clock = FakeSource(), FakeClock()
    async with running(source, start="models", clock=clock) as (pilot, app):
        await press(pilot, "p")
        assert app.frozen
        asked = source.calls.count("models")
        clock.advance(60)
        await settle(pilot)
        assert source.calls.count("models") == asked


@pytest.mark.parametrize("size", SIZES)
async def test_one_version_in_detail(size: tuple[int, int]) -> None:
    async with running(start="models", size=size) as (pilot, app):
        await press(pilot, "j", "enter")
        page = text(app, "page")
        for told in ("digits:3", "accuracy >= 0.97", "0.9811", "joao approves", "counts",
                     "j403.1 train-digits, by mira", "4f2a9c1d77e0 main with changes",
                     "model.onnx"):  # fmt: skip
            assert told in page, told
        await press(pilot, "escape")
        assert app.place == "models" and not isinstance(app.screen, Confirm)


async def test_an_approval_names_what_was_shown() -> None:
    source = FakeSource()
    shown = source.versions[0]
    async with running(source, start="models") as (pilot, app):
        await press(pilot, "a")
        assert isinstance(app.screen, Ask)
        assert "Gate quality passed: 2 of 2 conditions hold" in screen_text(app)
        await press(pilot, *"looks good", "enter")
        assert isinstance(app.screen, Confirm) and source.acts == []
        assert "looks good" in screen_text(app)
        asked = source.calls.count("models")
        await press(pilot, "y")
        assert source.acts == [("approve", "digits:4")]
        assert source.bodies == [
            {
                "digest": shown["digest"],
                "evidence": shown["gates"][0]["evidence"],
                "comment": "looks good",
            }
        ]
        assert source.calls.count("models") == asked + 1, "the list is read anew after it"


async def test_a_rejection_needs_a_reason_and_can_be_left() -> None:
    source = FakeSource()
    async with running(source, start="models") as (pilot, app):
        await press(pilot, "x", "enter")
        assert isinstance(app.screen, Ask) and "Say why" in screen_text(app)
        await press(pilot, *"leaky", "enter", "n")
        assert source.acts == []
        await press(pilot, "x", *"leaky", "enter", "y")
        assert source.acts == [("reject", "digits:4")]
        assert source.bodies[0]["comment"] == "leaky"


async def test_a_signed_approval_is_left_to_the_command() -> None:
    source = FakeSource()
    source.versions[0]["policy"] = {"signed": True}
    async with running(source, start="models") as (pilot, app):
        await press(pilot, "a")
        assert not isinstance(app.screen, Ask)
        assert "--sign" in screen_text(app)


def test_what_was_said_is_held_against_the_result_that_counts() -> None:
    without = decide(versions()[4], "approve", "")
    assert isinstance(without, Command)
    assert without.body == {"digest": versions()[4]["digest"], "evidence": None, "comment": ""}
    assert "No gate has been run on it." in without.effects
    failed = decide(versions()[3], "reject", "r")
    assert isinstance(failed, Command) and failed.dangerous
    assert any("FAILED: 1 of 2 conditions holds" in effect for effect in failed.effects)
    archived = versions()[0]
    archived["state"] = "ARCHIVED"
    assert isinstance(decide(archived, "approve", ""), Refusal)


def test_versions_are_in_the_order_of_numbers() -> None:
    held = [fake_models.version("m", n, "PENDING", "", 0.9) for n in (2, 10, 9)]
    known = {one["id"]: one for one in held}
    assert rows(known, model_filter("", known)) == ["m:10", "m:9", "m:2"]


@pytest.mark.parametrize("cells", [66, 106])
def test_pages_keep_to_their_width_and_hostile_text_is_made_safe(cells: int) -> None:
    one = versions()[1]
    one["decisions"][0]["comment"] = "\x1b]0;gone\x07" + "a long reason " * 12
    one["gates"][0]["document"]["conditions"][0]["why"] = "x " * 90
    lines = detail_lines(one, cells, UNICODE)
    assert max(width(part) for part in lines) <= cells
    assert "\x1b" not in "".join(plain(part) for part in lines)
    drifted = fake_monitors.window(1, "drift", reason="\x1b[2J" * 60, report=fake_monitors.report())
    drifted["report"]["features"][0]["name"] = "\x1b[2J長" * 30
    drifted["report"]["features"][1]["new"] = [{"value": "\x1b[2J" * 60, "share": 0.2}] * 5
    seen = Watched(fake_monitors.monitor(drifted), drifted, fake_monitors.keys("digits"))
    for view in deployments():
        lines = service_detail.detail_lines(view, seen, NOW, cells, UNICODE)
        assert max(width(part) for part in lines) <= cells
        assert "\x1b" not in "".join(plain(part) for part in lines)


@pytest.mark.parametrize(
    ("watched", "keyed", "said"),
    [
        (Watched(), False, ["none needed"]),
        (Watched(keys=fake_monitors.keys("x")), True, ["2 API keys, 1 revoked"]),
        (Watched(keys=fake_monitors.keys("x")[:1]), True, ["1 API key"]),
        (Watched(problem="it is away"), False, ["not read: it is away"]),
        (
            Watched(fake_monitors.monitor(every=None, service="ocr")),
            False,
            ["none; `monitor: 1d` in the service's file, or `qd monitor ocr`"],
        ),
        (Watched(fake_monitors.monitor()), False, ["every 1d0h", "no window has been looked at"]),
    ],
)
def test_what_is_said_of_monitor_and_keys(watched: Watched, keyed: bool, said: list[str]) -> None:
    view = deployment("digits", keyed=keyed)
    page = "\n".join(map(plain, service_detail.detail_lines(view, watched, NOW, 100, UNICODE)))
    assert [one for one in said if one not in page] == []


def test_too_little_data_is_no_verdict() -> None:
    few = fake_monitors.monitors()["ocr"]["runs"][0]
    few["report"] = {
        **fake_monitors.report(),
        "features": [fake_monitors.feature("x", None, psi=None)],
    }
    page = [plain(row) for row in monitor_lines(
        Watched(fake_monitors.monitor(few), few), NOW, 100, UNICODE
    )]  # fmt: skip
    assert any("not enough data, 12 requests" in row for row in page)
    assert any(row.split()[:4] == ["x", "not", "enough", "data"] for row in page)


async def test_a_deployment_shows_which_features_drift() -> None:
    source = FakeSource()
    async with running(source, start="deployments") as (pilot, app):
        await press(pilot, "enter")
        page = text(app, "page")
        assert "2 API keys, 1 revoked" in page and "compares 900 requests" in page
        rows = [row.split() for row in page.split("\n")]
        assert ["brightness", "drift", "0.83", "SD"] in [row[:4] for row in rows]
        assert "and 4 more without drift" in page
        await press(pilot, "escape", "j", "j", "enter")
        assert "12 requests; 200 are needed" in text(app, "page")


async def test_a_monitor_that_cannot_be_read_hides_nothing_else() -> None:
    source = FakeSource()
    source.monitor = lambda service, target: (_ for _ in ()).throw(  # type: ignore[method-assign]
        Unreachable("the control plane is away", "")
    )
    async with running(source, start="deployments") as (pilot, app):
        await press(pilot, "enter")
        page = text(app, "page")
        assert "not read: the control plane is away" in page and "Versions" in page


# Deployments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_services_with_traffic_replicas_and_rollouts(size: tuple[int, int]) -> None:
    async with running(start="cluster", size=size) as (pilot, app):
        await press(pilot, "5")
        assert app.place == "deployments"
        shown = screen_text(app)
        for told in ("stepping", "trouble", "serving", "production", "digits:3 75%", "4/4", "0/2",
                     "12.3ms", "0.138%"):  # fmt: skip
            assert told in shown, told
        assert "4 deployments" in text(app, "head") and "1 in trouble" in text(app, "head")
        await press(pilot, "enter")
        page = text(app, "page")
        for told in ("digits:4 after digits:3", "180 of 300 for this step", "5%, 25%, 50%",
                     "3 of 1200 (0.25%) against 8 of 3800", "j431 j441"):  # fmt: skip
            assert told in page, told


@pytest.mark.parametrize(
    ("keys", "verb"),
    [
        ("o", "promote"),
        ("P", "pause rollout"),
        ("X", "abort rollout"),
        ("b", "roll back"),
    ],
)
async def test_a_rollout_is_steered_after_a_question(keys: str, verb: str) -> None:
    source = FakeSource()
    async with running(source, start="deployments") as (pilot, app):
        await press(pilot, keys)
        assert isinstance(app.screen, Confirm) and "digits at production" in screen_text(app)
        await press(pilot, "enter", "n")
        assert source.acts == []
        await press(pilot, keys, "y")
        assert source.acts == [(verb, "digits/production")]


def test_a_rollout_that_is_paused_goes_on() -> None:
    made = commands.pause(deployment("digits", rollout=rollout("paused", "paused by mira")))
    assert isinstance(made, Command) and made.verb == "resume rollout"


@pytest.mark.parametrize("how", [commands.promote, commands.pause, commands.abort])
def test_what_is_over_is_not_steered(how: object) -> None:
    assert callable(how)
    for view in (deployment("a"), deployment("a", rollout=rollout("done"))):
        assert isinstance(how(view), Refusal)


def test_going_back_says_where_to_as_far_as_that_is_known() -> None:
    done = commands.rollback(deployment("a", rollout=rollout("done")))
    assert isinstance(done, Command) and "digits:3" in done.question
    ended = commands.rollback(deployment("a", rollout=rollout("aborted")))
    assert isinstance(ended, Command) and "digits:3" not in ended.question
    first = deployment("a", rollout=rollout("starting", before=None))
    assert isinstance(commands.rollback(first), Refusal)
    assert isinstance(commands.rollback(deployment("a")), Refusal)


def test_warm_versions_are_not_counted_among_those_that_should_serve() -> None:
    view = deployment(
        "a", versions=[served(1, "a", 100.0, 2), served(2, "b", 0.0, 0, state="warm")]
    )
    assert ready(view) == (2, 2)
    assert share(0, 0) == "-" and share(1, 3) == "33.3%"
    assert [milliseconds(s) for s in (None, 0.00042, 0.0123, 0.1404, 0.9999, 2.1)] == [
        "-", "0.42ms", "12.3ms", "140ms", "1.0s", "2.1s",
    ]  # fmt: skip


@pytest.mark.parametrize("cells", [66, 106])
def test_a_scaled_service_says_how_and_why_it_cannot(cells: int) -> None:
    view = deployment("a", scaling=scaling(), versions=[served(1, "digits:3", 100.0, 2)])
    assert verdict(view) == "scaled to 3: 20 requests in progress, at most 8 for each replica"
    short = deployment("a", scaling=scaling(blocked="j7 is queued: needs 1 GPU\x1b[2J"))
    assert verdict(short).startswith("no room for all replicas: j7 is queued: needs 1 GPU")
    lines = service_detail.detail_lines(short, Watched(), NOW, cells, UNICODE)
    told = " ".join(" ".join(plain(part) for part in lines).split())
    assert "2 of 3 replicas ready, scaled between 0 and 4" in told
    assert "8 requests in progress for each, p95 200ms" in told
    assert "\x1b" not in told and max(width(part) for part in lines) <= cells
    none = served(1, "a", 100.0, 0)
    none["replicas"] = 0
    asleep = deployment("a", versions=[none], scaling=scaling(replicas=0, ready=0))
    (column,) = [column for column in COLUMNS if column.title == "ready"]
    assert column.cell(asleep, NOW, UNICODE) == ("0/0", "dim")


# Both ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "keys", "labels"),
    [
        ("models", "ax", ("approve", "reject")),
        ("deployments", "oPXb", ("promote", "pause", "abort", "roll back")),
    ],
)
async def test_a_read_only_console_offers_no_actions(
    start: str, keys: str, labels: tuple[str, ...]
) -> None:
    source = FakeSource()
    async with running(source, start=start, read_only=True) as (pilot, app):
        assert not any(label in text(app, "footer") for label in labels)
        for key in keys:
            await press(pilot, key)
            assert not isinstance(app.screen, (Ask, Confirm))
        assert source.acts == []
    async with running(start=start) as (_, app):
        assert all(label in text(app, "footer") for label in labels)


@pytest.mark.parametrize("start", ["models", "deployments"])
async def test_an_empty_list_says_what_makes_one(start: str) -> None:
    async with running(FakeSource(empty=True), start=start) as (pilot, app):
        assert "qd " in text(app, "table")
        await press(pilot, *("a" if start == "models" else "o"), "enter")
        assert "There is no" in screen_text(app)


def test_every_verb_has_a_path() -> None:
    view = deployment("a", rollout=rollout("stepping"))
    again = deployment("a", rollout=rollout("paused"))
    steered = [how(view) for how in (commands.promote, commands.pause, commands.abort)]
    steered += [
        commands.pause(again),
        commands.rollback(view),
        decide(versions()[0], "reject", "r"),
    ]
    for one in steered:
        assert isinstance(one, Command) and one.verb in _ACTS
    assert age(view["changed_at"], NOW) == "1m"
