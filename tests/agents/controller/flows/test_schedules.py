"""Schedules on a real control plane whose clock is set."""

from __future__ import annotations

from typing import Any

import pytest

from agents.controller.flows import schedules
from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.flows.spec import PipelineSpec
from jobs.life.lifecycle import Note
from jobs.store import writing
from jobs.store.alerttables import AlertRow
from tests.agents.controller.conftest import Plane, until
from tests.agents.controller.flows.test_flows import ended, folder, log_of, task

QUICK: dict[str, Any] = {
    "a": {"job": {"command": "echo {n}"}, "params": {"n": "${params.n}"}, "cache": False}
}
LONG: dict[str, Any] = {"a": {"job": {"command": "sleep 600", "grace": 0, "notice": 0}}}  # fmt: skip
HOUR = 3600.0


@pytest.fixture
async def plane(make_plane: Any, monkeypatch: pytest.MonkeyPatch) -> Plane:
    monkeypatch.setattr(schedules, "TICK", 0.05)
    made: Plane = await make_plane(cpus=4)
    return made


async def add(
    plane: Plane, name: str, steps: dict[str, Any], schedule: dict[str, Any], **more: Any
) -> dict[str, Any]:
    spec = PipelineSpec.from_json({"name": "probe", "params": {"n": 1}, "steps": steps}).to_json()
    body = {"name": name, "spec": spec, "schedule": schedule, **more}
    view: dict[str, Any] = await plane.post("/v1/schedules", body)
    return view


async def firings(plane: Plane, name: str, count: int) -> list[dict[str, Any]]:
    async def look() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = (await plane.get(f"/v1/schedules/{name}"))["firings"]
        return found if len(found) >= count else None

    found: list[dict[str, Any]] = await until(look, what=lambda: f"{count} firings of {name}")
    return found


async def test_it_fires_once_each_moment_whatever_the_clock_does(plane: Plane) -> None:
    view = await add(plane, "hourly", QUICK, {"every": "1h"}, params={"n": 7})
    assert len(view["next"]) == 5
    assert view["told"] == "every 1h"
    plane.now.offset += HOUR
    [first] = await firings(plane, "hourly", 1)
    assert first["state"] == "STARTED"
    run = await ended(plane, first["pipeline"])
    assert await log_of(plane, task(run, "a")["job"]) == ["7"]
    plane.now.offset -= HOUR  # the same hour once more
    await plane.restart()
    plane.now.offset += HOUR
    plane.now.offset += HOUR
    second, _ = await firings(plane, "hourly", 2)
    await ended(plane, second["pipeline"])
    assert len(await plane.get("/v1/pipelines")) == 2
    events = await plane.lines("/v1/events", limit=200)
    assert [e["message"] for e in events if e["kind"] == "schedule.fired"] == [
        "schedule hourly started p1", "schedule hourly started p2",
    ]  # fmt: skip


async def test_what_was_missed_while_it_was_away(plane: Plane) -> None:
    for policy in ("skip", "once", "all"):
        await add(
            plane, policy, QUICK,
            {"every": "1h", "catch_up": policy, "at_most": 2, "overlap": "queue"},
        )  # fmt: skip
    await plane.stop()
    plane.now.offset += 5 * HOUR + 600
    await plane.start()

    async def started() -> bool:
        found = {}
        for policy in ("skip", "once", "all"):
            view = await plane.get(f"/v1/schedules/{policy}")
            found[policy] = sum(item["state"] == "STARTED" for item in view["firings"])
        return found == {"skip": 0, "once": 1, "all": 2}

    await until(started)
    view = await plane.get("/v1/schedules/skip")
    assert [item["state"] for item in view["firings"]] == ["MISSED"]
    assert "missed 5 moments" in view["firings"][0]["reason"]


async def test_while_the_run_before_is_not_over(plane: Plane) -> None:
    await add(plane, "skip", LONG, {"every": "1h"})
    plane.now.offset += HOUR
    [first] = await firings(plane, "skip", 1)
    plane.now.offset += HOUR
    second, _ = await firings(plane, "skip", 2)
    assert (second["state"], second["reason"]) == ("SKIPPED", f"{first['pipeline']} is not over")
    await plane.post("/v1/schedules/skip/remove")
    await plane.post(f"/v1/pipelines/{first['pipeline']}/cancel")
    with pytest.raises(NotFound):
        await plane.get("/v1/schedules/skip")

    await add(plane, "replace", LONG, {"every": "1h", "overlap": "replace"})
    plane.now.offset += HOUR
    [first] = await firings(plane, "replace", 1)
    plane.now.offset += HOUR
    await firings(plane, "replace", 2)
    view = await ended(plane, first["pipeline"])
    assert view["state"] == "CANCELLED"
    assert view["reason"] == "replaced by the next run of schedule replace"

    async def again() -> Any:
        second = (await plane.get("/v1/schedules/replace"))["firings"][0]
        return second if second["state"] == "STARTED" else None

    second = await until(again)
    await plane.post("/v1/schedules/replace/pause")
    await plane.post(f"/v1/pipelines/{second['pipeline']}/cancel")
    await ended(plane, second["pipeline"])


async def test_pausing_running_now_and_refusals(plane: Plane) -> None:
    await add(plane, "nightly", QUICK, {"cron": "30 2 * * *", "zone": "Europe/Berlin"})
    with pytest.raises(Conflict, match="there is a schedule 'nightly' already"):
        await add(plane, "nightly", QUICK, {"every": "1h"})
    with pytest.raises(InvalidInput, match=r"never comes|bad day"):
        await add(plane, "other", QUICK, {"cron": "0 0 31 2 *"})
    with pytest.raises(InvalidInput, match=r"steps.a: no node can run this"):
        big = {"a": {"job": {"command": "true", "resources": {"cpu": 99}}}}
        await add(plane, "other", big, {"every": "1h"})
    view = await plane.post("/v1/schedules/nightly/pause")
    assert (view["state"], view["next"]) == ("PAUSED", [])
    plane.now.offset += 72 * HOUR
    view = await plane.post("/v1/schedules/nightly/resume")
    assert view["state"] == "ACTIVE"
    view = await plane.post("/v1/schedules/nightly/run")
    [firing] = view["firings"]
    assert firing["reason"].startswith("run by ")
    assert (await ended(plane, firing["pipeline"]))["state"] == "SUCCEEDED"
    assert len(await plane.get("/v1/pipelines")) == 1
    assert [view["name"] for view in await plane.get("/v1/schedules")] == ["nightly"]


async def test_secrets_stay_with_the_schedule(plane: Plane) -> None:
    steps = {"a": {"job": {"command": "echo $TOKEN", "secrets": ["TOKEN"]}, "cache": False}}
    await add(plane, "secret", steps, {"every": "1h"}, secrets={"TOKEN": "s3cret"})
    for count in (1, 2):
        plane.now.offset += HOUR
        newest = (await firings(plane, "secret", count))[0]
        view = await ended(plane, newest["pipeline"])
        assert await log_of(plane, task(view, "a")["job"]) == ["s3cret"]
    await plane.post("/v1/schedules/secret/remove")
    assert not any((plane.root / "state" / "secrets" / "schedules").iterdir())


TRIGGERED: dict[str, Any] = {
    "a": {"job": {"command": "echo {n}"}, "params": {"n": "${params.what}"}, "cache": False}
}


async def on(plane: Plane, name: str, what: str, **more: Any) -> dict[str, Any]:
    spec = {"name": "probe", "params": {"what": "nothing"}, "steps": TRIGGERED}
    body = {
        "name": name,
        "spec": PipelineSpec.from_json(spec).to_json(),
        "schedule": {"on": what, "into": "what", **more},
    }
    view: dict[str, Any] = await plane.post("/v1/schedules", body)
    return view


async def add_data(plane: Plane, text: str) -> str:
    digest = folder(plane, **{"a.csv": text})
    view = await plane.post("/v1/data", {"name": "digits", "digest": digest})
    version: str = view["id"]
    return version


async def test_each_new_version_of_the_data_starts_one_run(plane: Plane) -> None:
    await add_data(plane, "before")
    view = await on(plane, "loop", "data digits")
    assert (view["told"], view["next"]) == ("on data digits", [])
    assert await add_data(plane, "first") == "digits@2"
    [first] = await firings(plane, "loop", 1)
    assert (first["state"], first["cause"]) == ("STARTED", "digits@2")
    run = await ended(plane, first["pipeline"])
    assert await log_of(plane, task(run, "a")["job"]) == ["digits@2"]
    await plane.post("/v1/schedules/loop/pause")
    await add_data(plane, "in the pause")
    await plane.post("/v1/schedules/loop/resume")
    plane.now.offset -= HOUR  # a clock that is set back misses none, and repeats none
    await plane.restart()
    await add_data(plane, "second")
    await add_data(plane, "third")
    causes = {f["cause"] for f in await firings(plane, "loop", 3)}
    assert causes == {"digits@2", "digits@4", "digits@5"}
    runs = [
        await ended(plane, f["pipeline"]) for f in await firings(plane, "loop", 3) if f["pipeline"]
    ]
    assert {run["params"]["what"] for run in runs} <= causes
    kinds = [row["action"] for row in await plane.lines("/v1/audit")]
    assert kinds.count("pipeline.triggered") >= 2


async def test_an_alert_and_drift_of_a_service_start_one_run_each_time(plane: Plane) -> None:
    await on(plane, "fix", "alert job_stalled")
    await on(plane, "again", "drift digits", cooldown="1d")
    await on(plane, "other", "drift other")

    def raised(rule: str, subject: str, since: float) -> Any:
        row = AlertRow(
            rule=rule, subject=subject, state="FIRING", severity="warning", text=f"{subject} is odd",
            since=since, seen=since, told=since, changed_at=since,
        )  # fmt: skip
        return lambda session: session.merge(row)

    now = plane.now()
    await plane.controller.db.write(raised("job_stalled", "j3", now))
    await plane.controller.db.write(raised("drift_features", "service digits", now))
    [fired] = await firings(plane, "fix", 1)
    assert (fired["state"], fired["cause"]) == ("STARTED", "j3 is odd")
    await firings(plane, "again", 1)
    await plane.controller.db.write(raised("drift_features", "service digits", now + 1))
    second, first = await firings(plane, "again", 2)
    assert (first["state"], second["state"]) == ("STARTED", "SKIPPED")
    assert second["reason"] == "within 1d of the run before"
    await plane.restart()
    assert len(await firings(plane, "fix", 1)) == 1
    assert (await plane.get("/v1/schedules/other"))["firings"] == []


async def test_what_a_monitor_finds_starts_a_training(plane: Plane) -> None:
    await on(plane, "again", "drift digits")
    note = Note("monitor.drift", "digits@production drifts (version 2): p27, p33", "warning")
    await plane.controller.db.write(lambda s: writing.add_events(s, None, [note], plane.now()))
    [fired] = await firings(plane, "again", 1)
    assert fired["cause"] == "digits@production drifts (version 2): p27, p33"
    run = await ended(plane, fired["pipeline"])
    assert await log_of(plane, task(run, "a")["job"]) == [fired["cause"]]


async def test_wrong_triggers_are_refused(plane: Plane) -> None:
    await add_data(plane, "there")
    for schedule, told in [
        ({"on": "alert job_staled"}, "no rule of alerts 'job_staled'; did you mean job_stalled"),
        ({"on": "data digts"}, "there is no data set 'digts'; did you mean digits"),
        ({"on": "model digits"}, "allowed: data NAME, alert RULE or drift SERVICE"),
        ({"on": "data digits", "every": "1h"}, "found every and on"),
        ({"every": "1h", "into": "n"}, "found into without on"),
        ({"on": "data digits", "into": "m"}, "into: there is no parameter 'm'; allowed: n"),
        ({"on": "data digits", "into": "n"}, "n is not a text"),
    ]:
        with pytest.raises(InvalidInput, match=told):
            await add(plane, "x", QUICK, schedule)
