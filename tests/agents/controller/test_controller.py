"""The controller with real agents, guards and ranks; only Ray is a stand-in."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from agents.controller.commands.explaining import missing_files
from jobs.base.errors import Conflict, InvalidInput, NotFound, Unreachable
from jobs.snapshots.manifest import Manifest
from jobs.spec.job import JobSpec
from jobs.store import blobrefs
from tests.agents.controller.conftest import Plane, until

METRICS = f"""{sys.executable} -c "
import quarterdeck, os
for step in range(3):
    quarterdeck.log(loss=1.0 / (step + 1), step=step)
print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])
" """


async def test_a_job_runs_and_everything_is_recorded(plane: Plane) -> None:
    job = await plane.submit(
        METRICS, procs_per_node=2, objective={"metric": "loss", "goal": "minimize"}
    )
    view = await plane.wait(job)
    assert view["state"] == "SUCCEEDED"
    assert view["exit_code"] == 0
    (attempt,) = view["attempts"]
    assert [(rank["state"], rank["exit_code"]) for rank in attempt["ranks"]] == [("EXITED", 0)] * 2
    assert view["metrics"]["loss"]["value"] == pytest.approx(1 / 3)
    assert view["objective"]["value"] == pytest.approx(1 / 3)
    lines = await plane.lines(f"/v1/jobs/{job}/logs")
    assert sorted(line["line"] for line in lines) == ["rank 0 of 2", "rank 1 of 2"]
    points = await plane.lines(f"/v1/jobs/{job}/metrics")
    assert sorted((p["rank"], p["step"]) for p in points) == [
        (r, s) for r in (0, 1) for s in (0, 1, 2)
    ]


async def test_what_a_job_logs_in_the_blink_of_an_eye_is_recorded(plane: Plane) -> None:
    line = '{"n":"loss","s":0,"t":1,"v":0.5}'
    command = f"printf '{line}\\n' >> \"$QD_METRICS_FILE\""
    jobs = [await plane.submit(command, resources={"cpu": 0.25}) for _ in range(10)]
    for job in jobs:
        view = await plane.wait(job)
        assert view["state"] == "SUCCEEDED"
        assert view["metrics"]["loss"]["value"] == 0.5, job


async def test_a_finished_job_leaves_nothing_behind(plane: Plane) -> None:
    job = await plane.submit("echo hi")
    await plane.wait(job)
    await until(lambda: not plane.controller.reconciler.live)
    assert await plane.fabric.reservations() == set()
    await until(lambda: not list((plane.root / "n1" / "attempts").glob("*")))


async def test_the_first_failing_rank_is_named(plane: Plane) -> None:
    job = await plane.submit(
        "if [ $RANK = 1 ]; then echo it broke; exit 7; fi; exec sleep 60", procs_per_node=2
    )
    view = await plane.wait(job)
    assert (view["state"], view["exit_code"]) == ("FAILED", 7)
    story = await plane.get(f"/v1/jobs/{job}/explain")
    failure = story["first_failure"]
    assert (failure["rank"], failure["node"], failure["exit_code"]) == (1, "n1", 7)
    assert failure["tail"] == ["it broke"]
    assert "rank 1" in story["summary"]


async def test_a_file_that_git_left_at_home_is_named(plane: Plane) -> None:
    command = (
        "echo \"FileNotFoundError: [Errno 2] No such file or directory: 'data/train.bin'\"; exit 1"
    )
    home = {"files": 3, "bytes": 9, "paths": ["data/", "w.pt"]}
    git = {"commit": "c" * 40, "branch": "main", "dirty": False, "at_home": home}
    spec = JobSpec.from_json({"command": command}).to_json()
    job = (await plane.post("/v1/jobs", {"spec": spec, "git": git}))["id"]
    assert (await plane.wait(job))["git"] == git
    story = await plane.get(f"/v1/jobs/{job}/explain")
    assert (
        "its log names data/train.bin, which did not travel: git ignores data/" in story["reasons"]
    )
    assert story["unblock"] == [
        {"change": "send data/ with the job", "command": "qd submit --include 'data/**' ..."}
    ]


def test_what_a_log_lacks_is_compared_with_what_stayed_at_home() -> None:
    def found(line: str) -> dict[str, str]:
        return missing_files([line], ["data/", "src/w.pt", "cfg/"])

    assert found("cannot open ./data/x") == {"./data/x": "data/"}
    assert found("FileNotFoundError: /q/attempts/c-j1.1/work/src/w.pt") == {}
    assert found("No such file or directory: '/q/c-j1.1/work/src/w.pt'") == {
        "/q/c-j1.1/work/src/w.pt": "src/w.pt"
    }
    assert found("data: No such file or directory") == {"data": "data/"}
    assert found("/mnt/data/x: No such file or directory") == {}
    assert found("my/data/x and database not found") == {}
    assert found("data/x is fine") == {}


async def test_the_same_key_twice_is_one_job(plane: Plane) -> None:
    first = await plane.submit("true", key="k")
    assert await plane.submit("true", key="k") == first
    assert (await plane.get("/v1/jobs"))["total"] == 1


async def test_two_submits_at_once_with_one_key_are_one_job(plane: Plane) -> None:
    ids = await asyncio.gather(*(plane.submit("true", key="k") for _ in range(8)))
    assert len(set(ids)) == 1


async def test_cancel_stops_the_ranks(plane: Plane) -> None:
    job = await plane.submit("exec sleep 100")
    view = await plane.wait(job, "RUNNING")
    pid = await until(lambda: _pid(plane, job))
    await plane.post(f"/v1/jobs/{job}/cancel")
    view = await plane.wait(job)
    assert view["state"] == "CANCELLED"
    assert not psutil.pid_exists(pid)


async def test_cancel_with_a_grace_of_its_own(plane: Plane) -> None:
    job = await plane.submit("trap '' TERM; while :; do sleep 0.1; done", grace=600.0)
    await plane.wait(job, "RUNNING")
    await until(lambda: _pid(plane, job))
    await plane.post(f"/v1/jobs/{job}/cancel", {"grace": 0.1})
    assert (await plane.wait(job))["state"] == "CANCELLED"


async def _pid(plane: Plane, job: str) -> int | None:
    view = await plane.get(f"/v1/jobs/{job}")
    ranks = view["attempts"][-1]["ranks"] if view["attempts"] else []
    return ranks[0]["pid"] if ranks else None


async def test_what_waits_says_why_and_starts_when_there_is_room(plane: Plane) -> None:
    first = await plane.submit("exec sleep 100", resources={"cpu": 2.0})
    await plane.wait(first, "RUNNING")
    second = await plane.submit("true", resources={"cpu": 2.0})
    await until(lambda: plane.controller.reconciler.reasons.get(int(second[1:])))
    view = await plane.get(f"/v1/jobs/{second}")
    assert view["state"] == "QUEUED"
    assert view["reason"]
    story = await plane.get(f"/v1/jobs/{second}/explain")
    assert any(first in item["change"] for item in story["unblock"])
    await plane.post(f"/v1/jobs/{first}/cancel")
    assert (await plane.wait(second))["state"] == "SUCCEEDED"


async def test_more_than_any_node_has_is_refused_with_the_numbers(plane: Plane) -> None:
    await until(lambda: plane.controller.cluster.nodes["n1"].facts)
    with pytest.raises(InvalidInput, match="16"):
        await plane.submit("true", resources={"cpu": 16.0})
    assert (await plane.get("/v1/jobs"))["total"] == 0


async def test_restart_and_retry(plane: Plane) -> None:
    flag = plane.root / "flag"
    job = await plane.submit(f"test -e {flag} || {{ touch {flag}; exit 3; }}", max_restarts=1)
    view = await plane.wait(job)
    assert view["state"] == "SUCCEEDED"
    assert [attempt["state"] for attempt in view["attempts"]] == ["FAILED", "SUCCEEDED"]
    assert view["restarts"] == 1
    await plane.post(f"/v1/jobs/{job}/retry")
    view = await until(lambda: _attempts(plane, job, 3))
    assert view["state"] == "SUCCEEDED"


async def _attempts(plane: Plane, job: str, number: int) -> Any:
    view = await plane.get(f"/v1/jobs/{job}")
    return view if view["attempt"] == number and view["state"] == "SUCCEEDED" else None


async def test_a_new_controller_goes_on_where_the_old_one_was(plane: Plane) -> None:
    gate = plane.root / "gate"
    job = await plane.submit(f"echo one; while ! test -e {gate}; do sleep 0.05; done; echo two")
    await plane.wait(job, "RUNNING")
    pid = await until(lambda: _pid(plane, job))
    await plane.restart()
    assert await until(lambda: _pid(plane, job)) == pid
    gate.touch()
    view = await plane.wait(job)
    assert view["state"] == "SUCCEEDED"
    assert len(view["attempts"]) == 1
    lines = await plane.lines(f"/v1/jobs/{job}/logs")
    assert [line["line"] for line in lines] == ["one", "two"]


async def test_what_ended_while_there_was_no_controller_is_recorded(plane: Plane) -> None:
    gate = plane.root / "gate"
    job = await plane.submit(f"while ! test -e {gate}; do sleep 0.05; done; echo done; exit 4")
    pid = await until(lambda: _pid(plane, job))
    await plane.stop()
    gate.touch()
    await until(lambda: not psutil.pid_exists(pid))
    await plane.start()
    view = await plane.wait(job)
    assert (view["state"], view["exit_code"]) == ("FAILED", 4)
    assert [line["line"] for line in await plane.lines(f"/v1/jobs/{job}/logs")] == ["done"]


async def test_a_node_that_was_drained_and_left_is_no_problem(
    make_plane: Callable[..., Any],
) -> None:
    plane: Plane = await make_plane(nodes=2)

    async def complaints() -> list[str]:
        status = await plane.get("/v1/status")
        return [problem["what"] for problem in status["problems"] if "silent" in problem["what"]]

    plane.fabric.node("n1").member = plane.fabric.node("n2").member = False
    await plane.post("/v1/nodes/n1/drain", {"reason": "sold"})
    plane.clock.skip(60)
    (complaint,) = await complaints()
    assert "n2" in complaint
    await plane.post("/v1/nodes/n1/undrain")
    assert len(await complaints()) == 2


async def test_a_silent_node_is_believed_alive_until_its_lease_is_over(
    make_plane: Callable[..., Any],
) -> None:
    plane: Plane = await make_plane(nodes=2, cpus=1)
    job = await plane.submit("exec sleep 100", lease=90.0, resources={"cpu": 1.0})
    view = await plane.wait(job, "RUNNING")
    await until(lambda: _pid(plane, job))
    (node,) = view["placed_on"]
    plane.fabric.node(node).reachable = False
    plane.clock.skip(60)
    await asyncio.sleep(1.5)  # more than one pass of the reconciler's tick
    view = await plane.get(f"/v1/jobs/{job}")
    assert (view["state"], view["attempt"]) == ("RUNNING", 1)
    plane.clock.skip(60)
    view = await until(lambda: _moved(plane, job))
    assert view["attempts"][0]["state"] == "LOST"
    assert view["placed_on"] != [node]
    # Its lease was only over by our clock, so its rank still runs; it must go when the node is back.
    plane.fabric.node(node).reachable = True
    left = plane.root / node
    await until(lambda: not _ranks(left))
    await plane.post(f"/v1/jobs/{job}/cancel")
    await plane.wait(job)


async def test_a_node_that_is_away_when_it_should_launch_has_its_whole_lease(plane: Plane) -> None:
    plane.clock.skip(10_000)  # the controller has been up for longer than any lease
    await until(lambda: plane.controller.cluster.nodes["n1"].facts)
    link = plane.controller.links
    agent_of = link.agent

    def unreachable_at_first(name: str) -> Any:
        live = plane.controller.reconciler.live.get(1)
        if live is not None and live.job.state == "RUNNING" and not waited:
            waited.append(asyncio.get_running_loop().time())
        if waited and asyncio.get_running_loop().time() < waited[0] + 2.5:
            raise Unreachable("away")
        return agent_of(name)

    waited: list[float] = []
    link.agent = unreachable_at_first  # type: ignore[assignment,method-assign]
    job = await plane.submit("true", lease=30.0)
    view = await plane.wait(job)
    assert waited
    assert (view["state"], view["attempt"]) == ("SUCCEEDED", 1)


async def _moved(plane: Plane, job: str) -> Any:
    view = await plane.get(f"/v1/jobs/{job}")
    return view if view["attempt"] == 2 and view["state"] == "RUNNING" else None


def _ranks(root: Any) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "sleep" and str(root) in process.environ().get("QD_WORK_DIR", ""):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


async def test_the_fabric_comes_back_empty_and_what_runs_is_reserved_again(plane: Plane) -> None:
    job = await plane.submit("exec sleep 100", resources={"cpu": 2.0})
    await plane.wait(job, "RUNNING")
    held = await plane.fabric.reservations()
    plane.fabric.forget()
    waiting = await plane.submit("true", resources={"cpu": 1.0})

    async def again() -> bool:
        return plane.fabric.state == "connected" and await plane.fabric.reservations() == held

    await until(again)
    assert (await plane.get(f"/v1/jobs/{waiting}"))["state"] == "QUEUED"
    await plane.post(f"/v1/jobs/{job}/cancel")
    assert (await plane.wait(waiting))["state"] == "SUCCEEDED"


async def test_what_keeps_jobs_from_being_placed_keeps_no_limit_from_being_held(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await plane.submit("exec sleep 100", timeout=1.0)
    await plane.wait(job, "RUNNING")

    async def broken() -> None:
        raise RuntimeError("one job that cannot be placed")

    monkeypatch.setattr(plane.controller.reconciler, "_schedule", broken)
    assert (await plane.wait(job))["state"] == "FAILED"


async def test_a_timeout_ends_the_job(plane: Plane) -> None:
    job = await plane.submit("exec sleep 100", timeout=1.0)
    view = await plane.wait(job)
    assert view["state"] == "FAILED"
    assert "timeout" in view["reason"]
    assert view["exit_code"] == 124, "as timeout(1), not 128 + 15"


async def test_a_rank_that_leaves_well_at_its_time_limit_is_timed_out_all_the_same(
    plane: Plane,
) -> None:
    job = await plane.submit('trap "exit 3" TERM; sleep 100 & wait', timeout=1.0)
    assert (await plane.wait(job))["exit_code"] == 124


async def test_outputs_are_kept_by_content(plane: Plane) -> None:
    job = await plane.submit("mkdir out; echo model > out/m.bin", outputs={"model": "out/m.bin"})
    view = await plane.wait(job)
    (artifact,) = view["artifacts"]
    assert (artifact["name"], artifact["size"]) == ("model", 6)
    assert plane.controller.blobs.read(artifact["digest"]) == b"model\n"


async def test_an_output_may_be_a_folder_or_a_pattern(plane: Plane) -> None:
    command = (
        "mkdir -p logs/version_0 logs/version_1 out/deep; echo a > logs/version_0/metrics.csv;"
        "echo b > logs/version_1/metrics.csv; echo w > out/deep/w; ln -s deep/w out/last; echo c > c"
    )
    outputs = {"logs": "logs/version_*/", "out": "out/**", "all": "out"}
    view = await plane.wait(await plane.submit(command, outputs=outputs))
    assert view["state"] == "SUCCEEDED", view["reason"]
    found = {a["name"]: (a["kind"], a["files"], a["size"]) for a in view["artifacts"]}
    assert found == {"logs": ("folder", 2, 4), "out": ("folder", 2, 2), "all": ("folder", 2, 2)}
    assert view["attempts"][-1]["left"] == {"files": 1, "bytes": 2}
    logs = next(a for a in view["artifacts"] if a["name"] == "logs")
    manifest = Manifest.from_bytes(plane.controller.blobs.read(logs["digest"]))
    assert [entry.path for entry in manifest.files] == [
        "logs/version_0/metrics.csv",
        "logs/version_1/metrics.csv",
    ]
    roots = await plane.controller.db.read(blobrefs.roots)
    assert logs["digest"] in roots.manifests, "its files must not be pruned"


async def test_a_required_output_that_is_missing_fails_the_job(plane: Plane) -> None:
    outputs = {"model": {"path": "m.bin", "required": True}, "log": "no.log"}
    view = await plane.wait(await plane.submit("true", outputs=outputs))
    assert (view["state"], view["exit_code"]) == ("FAILED", 1)
    assert view["reason"] == "it did not write the required output 'model'"
    assert view["warnings"] == [
        "output 'model': the job did not write m.bin",
        "output 'log': the job did not write no.log",
    ]
    view = await plane.wait(await plane.submit("echo > m.bin", outputs=outputs))
    assert (view["state"], len(view["warnings"])) == ("SUCCEEDED", 1)


async def test_an_output_that_was_not_written_is_told(plane: Plane) -> None:
    job = await plane.submit("true", outputs={"model": "out/m.bin"})
    await plane.wait(job)
    events = await plane.lines("/v1/events", job=job)
    assert any("did not write out/m.bin" in event["message"] for event in events)


async def test_an_output_that_is_no_file_holds_up_nobody(plane: Plane) -> None:
    paths = {"folder": "out/d", "link": "out/l", "fifo": "out/f", "model": "out/m.bin"}
    command = "mkdir -p out/d; ln -s /etc/hostname out/l; mkfifo out/f; echo model > out/m.bin"
    job = await plane.submit(command, outputs=paths)
    view = await plane.wait(job)
    assert view["state"] == "SUCCEEDED"
    assert [artifact["name"] for artifact in view["artifacts"]] == ["model"]
    told = [event["message"] for event in await plane.lines("/v1/events", job=job)]
    assert sum(message.startswith("output '") for message in told) == 3
    assert (await plane.wait(await plane.submit("true")))["state"] == "SUCCEEDED"


async def test_drained_nodes_take_no_new_work(plane: Plane) -> None:
    await until(lambda: plane.controller.cluster.nodes.get("n1"))
    view = await plane.post("/v1/nodes/n1/drain", {"reason": "new fan"})
    assert view["reason"] == "new fan"
    job = await plane.submit("true")
    await until(lambda: plane.controller.reconciler.reasons.get(int(job[1:])))
    assert "n1" in (await plane.get(f"/v1/jobs/{job}"))["reason"]
    await plane.restart()  # what a person said is not forgotten
    assert (await plane.get("/v1/nodes/n1"))["reason"] == "new fan"
    await plane.post("/v1/nodes/n1/undrain")
    assert (await plane.wait(job))["state"] == "SUCCEEDED"


async def test_bytes_that_are_not_utf8_and_escapes_are_kept(plane: Plane) -> None:
    job = await plane.submit(r"printf 'a\377b\n\033[31mred\n'")
    await plane.wait(job)
    lines = await plane.lines(f"/v1/jobs/{job}/logs")
    assert [line["line"] for line in lines] == ["a\\xffb", "\x1b[31mred"]
    data, _ = await asyncio.to_thread(plane.client.raw, f"/v1/jobs/{job}/logs/0/raw")
    assert data == b"a\377b\n\033[31mred\n"


async def test_a_job_that_cuts_its_own_log_ends_all_the_same(plane: Plane) -> None:
    # `> /dev/stderr` opens the rank's log anew, and truncates it: a common idiom in scripts.
    job = await plane.submit("seq 1000; sleep 0.6; echo oops > /dev/stderr; sleep 0.6; echo end")
    view = await plane.wait(job)
    assert view["state"] == "SUCCEEDED"
    lines = [line["line"] for line in await plane.lines(f"/v1/jobs/{job}/logs")]
    assert lines[-2:] == ["oops", "end"]
    assert lines[0] == "1" or "missing here" in lines[0]


async def test_a_job_that_puts_links_in_place_of_its_files_ends_and_leaks_nothing(
    plane: Plane,
) -> None:
    job = await plane.submit(
        "echo before; rm -f $QD_METRICS_FILE; ln -s /etc/passwd $QD_METRICS_FILE;"
        " ln -sf /etc/passwd ../rank-0.log; sleep 0.6"
    )
    assert (await plane.wait(job))["state"] == "SUCCEEDED"
    lines = [line["line"] for line in await plane.lines(f"/v1/jobs/{job}/logs")]
    assert not any("root:" in line for line in lines)


async def test_following_a_log_goes_on_into_the_next_attempt(plane: Plane) -> None:
    flag = plane.root / "flag"
    job = await plane.submit(
        f"echo run; test -e {flag} || {{ touch {flag}; exit 3; }}", max_restarts=1
    )
    lines = await plane.lines(f"/v1/jobs/{job}/logs", follow=True)
    assert [(line["attempt"], line["line"]) for line in lines] == [(1, "run"), (2, "run")]


async def test_500_queued_jobs(plane: Plane) -> None:
    first = await plane.submit("exec sleep 100", resources={"cpu": 2.0})
    for _ in range(20):
        await asyncio.gather(*(plane.submit("true", resources={"cpu": 2.0}) for _ in range(25)))
    page = await plane.get("/v1/jobs", limit=100)
    assert page["total"] == 501
    seen = [view["id"] for view in page["jobs"]]
    while page["next"]:
        page = await plane.get("/v1/jobs", limit=100, before=page["next"])
        seen += [view["id"] for view in page["jobs"]]
    assert len(set(seen)) == 501
    for job in seen:
        if job != first:
            await plane.post(f"/v1/jobs/{job}/cancel")
    assert len(plane.controller.reconciler.live) == 1


async def test_what_makes_no_sense_is_refused_in_words(plane: Plane) -> None:
    with pytest.raises(NotFound, match="no job j9"):
        await plane.get("/v1/jobs/j9")
    with pytest.raises(InvalidInput, match="not a job id"):
        await plane.get("/v1/jobs/x9")
    job = await plane.submit("true")
    await plane.wait(job)
    with pytest.raises(Conflict, match="is succeeded"):
        await plane.post(f"/v1/jobs/{job}/cancel")
    with pytest.raises(InvalidInput, match="sooner"):
        await plane.get("/v1/jobs", state="sooner")


async def test_the_caller_is_who_the_kernel_says(plane: Plane) -> None:
    job = await plane.submit("true")
    view = await plane.get(f"/v1/jobs/{job}")
    assert view["user"] == psutil.Process(os.getpid()).username()


async def test_watch_gives_the_state_then_the_changes(plane: Plane) -> None:
    job = await plane.submit("true")
    await plane.wait(job)

    def read() -> list[dict[str, Any]]:
        seen = []
        with plane.client.stream("/v1/watch", topics="jobs,events") as stream:
            for delta in stream:
                seen.append(delta)
                if delta["op"] == "put" and delta.get("key") == "j2":
                    return seen
        return seen

    reading = asyncio.create_task(asyncio.to_thread(read))
    await asyncio.sleep(0.3)
    await plane.submit("true")
    seen = await reading
    assert seen[0]["op"] == "reset"
    assert any(delta["op"] == "ready" for delta in seen)
    assert {
        delta["key"] for delta in seen if delta["op"] == "put" and delta["topic"] == "jobs"
    } == {
        "j1",
        "j2",
    }


async def test_watch_goes_on_from_a_revision(plane: Plane) -> None:
    job = await plane.submit("true")
    await plane.wait(job)
    hub = plane.controller.hub
    since, boot = hub.revision, hub.boot
    await plane.wait(await plane.submit("true"))

    def read() -> list[dict[str, Any]]:
        seen = []
        with plane.client.stream("/v1/watch", topics="jobs", since=since, boot=boot) as stream:
            for delta in stream:
                seen.append(delta)
                if delta["op"] == "ready":
                    return seen
        return seen

    seen = await asyncio.to_thread(read)
    keys = {delta["key"] for delta in seen if delta["op"] == "put"}
    assert "j2" in keys
    assert all(delta["rev"] > since for delta in seen if delta["op"] == "put")
    assert all(delta["op"] != "reset" for delta in seen)


async def test_several_attempts_are_one_curve(plane: Plane) -> None:
    script = (
        "import quarterdeck as q\n"
        "first = q.attempt == 1\n"
        "for step in range(6) if first else range(3, 8):\n"
        "    q.log(loss=q.attempt, step=step)\n"
        "if first: q.log(once=7, step=1); raise SystemExit(1)\n"
    )
    job = await plane.submit(f"{sys.executable} -c '{script}'", max_restarts=1)
    view = await plane.wait(job, "SUCCEEDED")
    assert view["metrics"]["loss"]["step"] == 7
    assert view["metrics"]["once"]["value"] == 7
    assert list(view["metrics"]) == ["loss", "once"]
    expected = [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2), (7, 2)]
    line = (await plane.get(f"/v1/jobs/{job}/series"))["loss"]
    assert [(point["step"], point["value"]) for point in line] == expected
    points = await plane.lines(f"/v1/jobs/{job}/metrics", name="loss")
    assert [(point["step"], point["value"]) for point in points] == expected
    alone = (await plane.get(f"/v1/jobs/{job}.1/series"))["loss"]
    assert [(point["step"], point["value"]) for point in alone] == [(n, 1) for n in range(6)]
    points = await plane.lines(f"/v1/jobs/{job}.2/metrics", name="loss")
    assert [point["step"] for point in points] == [3, 4, 5, 6, 7]


async def test_a_script_that_only_prints_has_an_objective(plane: Plane) -> None:
    job = await plane.submit(
        "for i in 1 2 3; do echo iter $i: loss 0.$i; done",
        metrics={"step": "iter ([0-9]+)", "val": "loss (.*)"},
        objective={"metric": "val", "goal": "minimize"},
    )
    view = await plane.wait(job, "SUCCEEDED")
    assert (view["objective"]["value"], view["objective"]["step"]) == (0.3, 3)
