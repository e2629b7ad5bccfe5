"""The life of a job: the table's single steps, then whole random histories against a model world."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.life import lifecycle as lc
from jobs.life.endings import STEADY
from jobs.life.lifecycle import Job, handle


def run(job: Job, *events: lc.Event, now: float = 100.0) -> Job:
    for event in events:
        job = handle(job, event, now).job
    return job


def running(nodes: tuple[str, ...] = ("n1", "n2"), **changes: object) -> Job:
    job = replace(Job(id=1), **changes)  # type: ignore[arg-type]
    staged = [lc.Staged(7, node) for node in nodes]
    job = run(job, lc.Placed(nodes, 7), lc.Granted(), *staged)
    return run(job, *(lc.Reported(7, node, "running") for node in nodes))


def ended(node: str, outcome: str, rank: int | None = None, at: float | None = None) -> lc.Reported:
    return lc.Reported(7, node, "ended", outcome, f"rank {rank} failed", rank, at)


def test_a_gang_succeeds_when_every_part_is_done() -> None:
    job = run(running(), ended("n1", "done"))
    assert job.state == "RUNNING"
    result = handle(job, ended("n2", "done"), 200.0)
    assert result.job.state == "SUCCEEDED"
    assert result.job.ended_at == 200.0
    assert result.effects == (lc.Release(7),)
    assert run(result.job, lc.Released(7)).attempt.released  # type: ignore[union-attr]


def test_it_ended_when_its_nodes_say_that_its_ranks_did() -> None:
    """Though it is heard of an hour later. Where one allocation was lost, nobody knows."""
    done = [replace(ended(node, "done"), ran=ran) for node, ran in (("n1", 30.0), ("n2", 31.0))]
    job = run(running(), *done, now=3700.0)
    assert (job.started_at, job.ended_at) == (100.0, 131.0)
    assert job.attempt is not None
    assert job.attempt.ended_at == 131.0
    job = run(running(), done[0], lc.Gone(7, "n2", "silent"), now=3700.0)
    assert job.attempt is not None
    assert job.attempt.ended_at == 3700.0


def test_times_go_along_with_a_clock_that_is_set() -> None:
    job = run(running(), lc.ClockSet(-3600.0))
    assert job.attempt is not None
    assert job.started_at == job.attempt.started_at == 100.0 - 3600.0
    job = run(replace(Job(id=1), not_before=150.0), lc.ClockSet(3600.0))
    assert (job.started_at, job.not_before) == (None, 3750.0)
    over = run(running(("n1",)), ended("n1", "done"))
    assert run(over, lc.ClockSet(3600.0)) == over


def test_effects_follow_the_state() -> None:
    job = run(Job(id=1), lc.Placed(("n1", "n2"), 7))
    assert lc.effects_of(job) == (lc.Reserve(("n1", "n2")),)
    job = run(job, lc.Granted())
    assert lc.effects_of(job) == (lc.Stage("n1", 0), lc.Stage("n2", 1))
    job = run(job, lc.Staged(7, "n2"))
    assert lc.effects_of(job) == (lc.Stage("n1", 0),)
    job = run(job, lc.Staged(7, "n1"))
    assert job.state == "RUNNING"
    assert lc.effects_of(job) == (lc.Launch("n1", 0), lc.Launch("n2", 1))
    job = run(job, lc.Reported(7, "n1", "running"))
    assert lc.effects_of(job) == (lc.Launch("n2", 1),)


def test_one_failed_rank_stops_the_gang_and_is_named() -> None:
    job = run(running(), ended("n2", "failed", rank=3, at=50.0))
    assert job.state == "STOPPING"
    assert lc.effects_of(job) == (lc.Stop("n1", "gang"),)
    job = run(job, ended("n1", "stopped"))
    assert job.state == "FAILED"
    assert job.attempt is not None
    assert job.attempt.failure is not None
    assert job.attempt.failure.rank == 3


def test_the_earlier_failure_is_named_even_when_its_report_comes_later() -> None:
    job = run(
        running(), ended("n2", "failed", rank=3, at=50.0), ended("n1", "failed", rank=0, at=49.0)
    )
    assert job.attempt is not None
    assert job.attempt.failure is not None
    assert job.attempt.failure.rank == 0


def test_a_failure_is_restarted_while_restarts_are_left_and_only_then() -> None:
    job = running(("n1",), max_restarts=1, restarts_left=1)
    job = run(job, ended("n1", "failed", rank=0))
    assert (job.state, job.restarts_left) == ("QUEUED", 0)
    job = run(job, lc.Released(7), lc.Placed(("n1",), 8), lc.Granted(), lc.Staged(8, "n1"))
    job = run(job, lc.Reported(8, "n1", "ended", "failed", "again", 0, 1.0))
    assert job.state == "FAILED"


def test_what_cannot_be_staged_is_not_restarted() -> None:
    job = run(Job(id=1, restarts_left=2), lc.Placed(("n1",), 7), lc.Granted())
    job = run(job, lc.StageFailed(7, "n1", "no such interpreter"), ended("n1", "refused"))
    assert job.state == "FAILED"
    assert "no such interpreter" in job.reason


def test_a_node_that_is_not_well_is_no_fault_of_the_job() -> None:
    job = run(Job(id=1), lc.Placed(("n1", "n2"), 7), lc.Granted())
    job = run(job, lc.StageFailed(7, "n2", "GPU 3 does not answer", "node"))
    assert lc.effects_of(job) == (lc.Stop("n1", "gang"), lc.Stop("n2", "gang"))
    job = run(job, ended("n1", "refused"), ended("n2", "refused"))
    assert (job.state, job.losses) == ("QUEUED", 1)
    assert "n2: GPU 3 does not answer" in job.reason
    assert job.attempt is not None
    assert job.attempt.failure == lc.Failure("n2", "GPU 3 does not answer", None, 100.0)


def stalled(action: str = "warn", reason: str = "rank 1 on n2 is silent") -> lc.Stalled:
    return lc.Stalled(7, "n2", reason, action)  # type: ignore[arg-type]


def test_a_stall_is_told_once_until_it_is_over() -> None:
    result = handle(running(), stalled(), 1.0)
    assert result.job.stalled
    assert (result.job.state, result.job.reason) == ("RUNNING", "rank 1 on n2 is silent")
    assert [(note.kind, note.severity) for note in result.notes] == [("job.stalled", "warning")]
    again = handle(result.job, stalled(reason="rank 1 on n2 is still silent"), 2.0)
    assert (again.job, again.notes) == (result.job, ())
    over = handle(result.job, lc.Unstalled(7), 3.0)
    assert not over.job.stalled
    assert [note.kind for note in over.notes] == ["job.unstalled"]
    assert handle(over.job, lc.Unstalled(7), 4.0).notes == ()
    assert run(result.job, ended("n1", "done"), ended("n2", "done")).reason == ""


def test_a_stalled_gang_is_restarted_while_restarts_are_left() -> None:
    job = run(running(max_restarts=1, restarts_left=1), stalled("restart"))
    assert lc.effects_of(job) == (lc.Stop("n1", "stalled"), lc.Stop("n2", "stalled"))
    # A rank that dies of being stopped is not what went wrong.
    job = run(job, ended("n1", "failed", rank=0), ended("n2", "stopped"))
    assert (job.state, job.restarts_left) == ("QUEUED", 0)
    assert job.attempt is not None
    assert job.attempt.failure == lc.Failure("n2", "rank 1 on n2 is silent", None, 100.0)
    job = run(running(max_restarts=1), stalled("restart"))
    job = run(job, ended("n1", "stopped"), ended("n2", "stopped"))
    assert (job.state, job.reason) == ("FAILED", "rank 1 on n2 is silent")


def test_a_stalled_gang_fails_though_restarts_are_left_when_the_job_says_so() -> None:
    job = run(running(max_restarts=2, restarts_left=2), stalled("fail"))
    job = run(job, ended("n1", "stopped"), ended("n2", "stopped"))
    assert (job.state, job.reason) == ("FAILED", "rank 1 on n2 is silent")
    assert run(job, lc.Released(7), lc.Retry("mira")).restarts_left == 2


def test_a_stall_is_news_only_while_the_gang_runs() -> None:
    stopping = run(running(), lc.Cancel("mira"))
    assert handle(stopping, stalled("fail"), 1.0).job == stopping
    assert handle(running(), lc.Stalled(6, "n2", "old", "fail"), 1.0).job == running()


def test_a_lost_node_does_not_count_against_the_scripts_restarts() -> None:
    job = run(running(("n1",)), lc.Gone(7, "n1", "silent"))
    assert (job.state, job.losses, job.restarts_left) == ("QUEUED", 1, 0)
    assert job.attempt is not None
    assert job.attempt.state == "LOST"


def test_ranks_that_were_stopped_though_nobody_asked_are_lost_with_their_machine() -> None:
    """It shuts down, or an operator has ended their guard: the script has done nothing wrong."""
    job = run(running(("n1",)), ended("n1", "stopped"))
    assert (job.state, job.losses, job.restarts_left) == ("QUEUED", 1, 0)
    assert job.attempt is not None
    assert job.attempt.state == "LOST"
    assert job.attempt.failure is not None
    assert job.attempt.failure.node == "n1"


def test_a_job_that_loses_every_node_fails_in_the_end() -> None:
    job = running(("n1",), losses=lc.MAX_LOSSES)
    job = run(job, lc.Gone(7, "n1", "silent"))
    assert job.state == "FAILED"
    assert "infrastructure" in job.reason


def test_an_endless_job_is_never_lost_for_good() -> None:
    job = running(("n1",), losses=lc.MAX_LOSSES, endless=True)
    assert run(job, lc.Gone(7, "n1", "silent")).state == "QUEUED"


@pytest.mark.parametrize(
    ("endless", "lasted", "left"), [(True, STEADY, 2), (True, STEADY - 1, 0), (False, STEADY, 0)]
)
def test_an_attempt_that_lasted_gives_an_endless_job_its_restarts_again(
    endless: bool, lasted: float, left: int
) -> None:
    job = running(("n1",), max_restarts=3, restarts_left=1, endless=endless)
    assert job.attempt is not None and job.attempt.started_at is not None
    job = run(job, ended("n1", "failed", rank=0), now=job.attempt.started_at + lasted)
    assert (job.state, job.restarts_left) == ("QUEUED", left)


FAILED_AT = 100.0


@pytest.mark.parametrize("silent", [200.0, 101.0, 95.0, None])
def test_a_rank_that_fails_as_its_peers_host_dies_is_no_fault_of_the_script(
    silent: float | None,
) -> None:
    job = run(running(), ended("n1", "failed", rank=0, at=FAILED_AT))
    assert job.state == "STOPPING"
    job = run(job, lc.Gone(7, "n2", "no contact", silent), now=FAILED_AT + 100)
    assert (job.state, job.losses, job.attempt and job.attempt.state) == ("QUEUED", 1, "LOST")
    assert job.attempt is not None
    assert job.attempt.failure is not None
    assert job.attempt.failure.node == "n2", "where it began, for whoever counts losses of nodes"
    assert "n2: no contact; then on n1: rank 0 failed" in job.reason


def test_a_host_that_is_lost_long_after_the_failure_does_not_excuse_it() -> None:
    job = run(running(), ended("n1", "failed", rank=0, at=FAILED_AT))
    job = run(job, lc.Gone(7, "n2", "no contact", 80.0), now=FAILED_AT + 100)
    assert (job.state, job.losses) == ("FAILED", 0)


@pytest.mark.parametrize("outcome", ["died", "fenced"])
def test_a_rank_that_fails_as_its_peers_guard_dies_is_no_fault_of_the_script(outcome: str) -> None:
    job = run(running(), ended("n1", "failed", rank=0, at=FAILED_AT), ended("n2", outcome))
    assert (job.state, job.losses, job.attempt and job.attempt.state) == ("QUEUED", 1, "LOST")


def test_what_was_cancelled_meanwhile_stays_cancelled() -> None:
    job = run(running(), ended("n1", "failed", rank=0, at=FAILED_AT), lc.Cancel("ann"))
    assert run(job, lc.Gone(7, "n2", "no contact", 150.0), now=200.0).state == "CANCELLED"


def test_a_silent_node_keeps_the_gang_from_restarting() -> None:
    job = run(running(), ended("n1", "failed", rank=0))
    assert job.state == "STOPPING"  # n2 may still run
    job = replace(job, restarts_left=1)
    job = run(job, lc.Gone(7, "n2", "silent"))
    assert job.state == "QUEUED"


@pytest.mark.parametrize("stage", ["placing", "staging", "running", "stopping"])
def test_cancel_ends_a_job_at_every_stage(stage: str) -> None:
    job = run(Job(id=1, restarts_left=3), lc.Placed(("n1", "n2"), 7))
    if stage in ("staging", "running", "stopping"):
        job = run(job, lc.Granted())
    if stage in ("running", "stopping"):
        job = run(job, lc.Staged(7, "n1"), lc.Staged(7, "n2"))
    if stage == "stopping":
        job = run(job, ended("n1", "failed", rank=0))
    job = run(job, lc.Cancel("mira"))
    assert job.state == "STOPPING"
    job = run(job, ended("n1", "refused"), ended("n2", "refused"))
    assert job.state == "CANCELLED"
    assert job.reason == "cancelled by mira"


def test_a_job_that_finished_while_it_was_cancelled_has_succeeded() -> None:
    job = run(running(("n1",)), lc.Cancel("mira"), ended("n1", "done"))
    assert job.state == "SUCCEEDED"


def test_cancelling_twice_says_it_once() -> None:
    job = run(running(), lc.Cancel("mira"))
    again = handle(job, lc.Cancel("chen"), 1.0)
    assert again.job == job
    assert again.notes == ()


def test_refused_by_ray_goes_back_to_the_queue_and_the_number_is_used_again() -> None:
    job = run(Job(id=1), lc.Placed(("n1",), 7), lc.Refused("no room"), now=10.0)
    assert (job.state, job.attempts, job.attempt) == ("QUEUED", 0, None)
    assert job.not_before > 10.0


def test_news_of_an_older_attempt_changes_nothing() -> None:
    job = running()
    for event in (
        lc.Gone(6, "n1", "x"),
        lc.Reported(6, "n1", "ended", "failed"),
        lc.Staged(6, "n1"),
    ):
        assert handle(job, event, 1.0).job == job


def test_what_makes_no_sense_is_refused() -> None:
    done = run(running(("n1",)), ended("n1", "done"))
    with pytest.raises(lc.IllegalTransition, match="j1 is succeeded"):
        handle(done, lc.Cancel("mira"), 1.0)
    with pytest.raises(lc.IllegalTransition, match="retrying"):
        handle(running(), lc.Retry("mira"), 1.0)


def test_retry_starts_with_a_full_set_of_restarts() -> None:
    job = run(running(("n1",), max_restarts=2), ended("n1", "failed", rank=0), lc.Retry("mira"))
    assert (job.state, job.restarts_left, job.cancel) == ("QUEUED", 2, False)


# -- whole histories ------------------------------------------------------------------------------


@dataclass
class World:
    """What really runs. A guard lives on a node until it ends; agents report, or are silent."""

    job: Job = field(default_factory=lambda: Job(id=1, max_restarts=2, restarts_left=2))
    epoch: int = 0
    alive: set[tuple[int, str]] = field(default_factory=set)
    refused: set[tuple[int, str]] = field(default_factory=set)
    over: dict[tuple[int, str], str] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)
    now: float = 0.0

    def apply(self, event: lc.Event) -> None:
        self.now += 1
        self.job = handle(self.job, event, self.now).job
        self.story.append(f"{event} -> {self.job.state}")

    def step(self, choose: st.DataObject) -> None:
        """One thing happens: an effect is performed, or the world does something by itself."""
        options: list[tuple[str, object]] = [("effect", e) for e in lc.effects_of(self.job)]
        options += [("end", key) for key in sorted(self.alive)]
        attempt = self.job.attempt
        if attempt is not None:
            options += [("report", (attempt.epoch, one.node)) for one in attempt.allocations]
        if self.job.state == "QUEUED" and (attempt is None or attempt.released):
            options.append(("place", None))
        if not self.job.terminal:
            options += [("cancel", None), ("timeout", None), ("stall", None)]
        if not options:
            return
        kind, what = choose.draw(st.sampled_from(options))
        getattr(self, f"do_{kind}")(what, choose)

    def do_place(self, _: object, choose: st.DataObject) -> None:
        assert not self.alive, "a second copy would run beside " + str(self.alive)
        self.epoch += 1
        self.apply(lc.Placed(choose.draw(st.sampled_from([("n1",), ("n1", "n2")])), self.epoch))

    def do_cancel(self, _: object, choose: st.DataObject) -> None:
        if choose.draw(st.integers(0, 9)) == 0:
            self.apply(lc.Cancel("mira"))

    def do_timeout(self, _: object, choose: st.DataObject) -> None:
        if choose.draw(st.integers(0, 9)) == 0:
            self.apply(lc.Timeout(1))

    def do_stall(self, _: object, choose: st.DataObject) -> None:
        action = choose.draw(st.sampled_from(["warn", "over", "restart", "fail"]))
        stalled = lc.Stalled(self.epoch, "n1", "silent", action)  # type: ignore[arg-type]
        self.apply(lc.Unstalled(self.epoch) if action == "over" else stalled)

    def do_end(self, key: tuple[int, str], choose: st.DataObject) -> None:
        self.alive.discard(key)
        self.over[key] = choose.draw(st.sampled_from(["done", "failed", "died", "fenced"]))
        self.story.append(f"world: {key} {self.over[key]}")

    def do_report(self, key: tuple[int, str], choose: st.DataObject) -> None:
        epoch, node = key
        if key in self.over:
            rank = 0 if self.over[key] == "failed" else None
            self.apply(lc.Reported(epoch, node, "ended", self.over[key], "r", rank, self.now))
        elif key in self.alive:
            self.apply(lc.Reported(epoch, node, "running"))

    def do_effect(self, effect: lc.Effect, choose: st.DataObject) -> None:
        fails = choose.draw(st.integers(0, 9)) == 0
        match effect:
            case lc.Reserve(_):
                self.apply(lc.Refused("full") if fails else lc.Granted())
            case lc.Stage(node, _):
                assert self.job.attempt is not None
                epoch = self.job.attempt.epoch
                blame = choose.draw(st.sampled_from(["job", "node"])) if fails else "job"
                failed = lc.StageFailed(epoch, node, "x", blame)  # type: ignore[arg-type]
                self.apply(failed if fails else lc.Staged(epoch, node))
            case lc.Launch(node, _):
                assert self.job.attempt is not None
                key = (self.job.attempt.epoch, node)
                assert all(epoch == key[0] for epoch, _ in self.alive)
                if key not in self.over and key not in self.refused:
                    self.alive.add(key)
            case lc.Stop(node, _):
                assert self.job.attempt is not None
                key = (self.job.attempt.epoch, node)
                self.alive.discard(key)
                self.refused.add(key)
                self.over.setdefault(key, "stopped")
            case lc.Release(epoch):
                self.apply(lc.Released(epoch))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_history_runs_two_copies_and_every_one_can_end(choose: st.DataObject) -> None:
    world = World()
    for _ in range(choose.draw(st.integers(1, 60))):
        world.step(choose)
        attempt = world.job.attempt
        if world.job.terminal:
            assert not world.alive, "\n".join(world.story)
        if attempt is not None and attempt.state in ("SUCCEEDED", "FAILED", "CANCELLED", "LOST"):
            assert all(one.over for one in attempt.allocations), "\n".join(world.story)
    _let_it_end(world)
    assert world.job.terminal, "\n".join(world.story)
    assert not world.alive


def _let_it_end(world: World) -> None:
    """Cancel, then let everything that is wanted happen and be told."""
    if not world.job.terminal:
        world.apply(lc.Cancel("mira"))
    for _ in range(20):
        for effect in lc.effects_of(world.job):
            match effect:
                case lc.Stop(node, _):
                    assert world.job.attempt is not None
                    key = (world.job.attempt.epoch, node)
                    world.alive.discard(key)
                    outcome = world.over.setdefault(key, "stopped")
                    world.apply(lc.Reported(key[0], node, "ended", outcome))
                case lc.Release(epoch):
                    world.apply(lc.Released(epoch))


def test_an_attempt_keeps_what_it_was_placed_with() -> None:
    job = lc.handle(lc.Job(1), lc.Placed(("n1", "n2"), 1, waits=True), 1.0).job
    job = lc.handle(job, lc.Granted(), 2.0).job
    job = lc.handle(job, lc.Staged(1, "n1", "m1/b"), 3.0).job
    job = lc.handle(job, lc.Staged(1, "n2"), 4.0).job
    job = lc.handle(job, lc.Reported(1, "n1", "running"), 5.0).job
    assert job.attempt is not None
    assert job.attempt.waits
    assert [one.boot for one in job.attempt.allocations] == ["m1/b", ""]
