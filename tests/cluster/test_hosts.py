"""Training on several hosts, whatever dies. Each test really kills, cuts or switches off."""

from __future__ import annotations

import json
import shlex
import sys
import time

import pytest

from jobs.base.errors import NotAllowed
from tests.cluster.fleet import Fleet
from tests.cluster.hosts import ROOT
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]


def test_a_gang_trains_on_two_hosts(fleet: Fleet) -> None:
    """The plain script, as it is: the ranks find each other through the network."""
    options = ["--nodes", "2", "--procs", "1", "--cpus", "2", "--python", sys.executable]
    workdir = ["--workdir", str(ROOT / "examples" / "plain")]
    done = fleet.head.qd("submit", *options, *workdir, "--wait", "--json", "--", "python train.py")
    view = fleet.job("last")
    assert (done.returncode, view["state"]) == (0, "SUCCEEDED")
    assert sorted(fleet.ranks(view["id"])) == ["w1", "w2"]
    for rank in (0, 1):
        assert f"[rank {rank}/2] epoch 10/10" in fleet.log(view["id"], 1, rank)


@pytest.mark.slow
def test_the_digits_example_trains_on_two_hosts(fleet: Fleet) -> None:
    """With the helper: its metrics and its model come from the host of rank 0."""
    options = ["--nodes", "2", "--procs", "1", "--cpus", "2", "--python", sys.executable]
    options += ["--workdir", str(ROOT / "examples" / "digits"), "--output", "model=out/model.onnx"]
    train = ["--", "python", "train.py", "--epochs", "6"]
    done = fleet.head.qd("submit", *options, "--wait", "--json", *train)
    view = fleet.job("last")
    assert (done.returncode, view["state"]) == (0, "SUCCEEDED")
    assert sorted(fleet.ranks(view["id"])) == ["w1", "w2"]
    assert view["metrics"]["val_acc"]["value"] > 0.9
    assert [artifact["name"] for artifact in view["artifacts"]] == ["model"]


def test_a_host_with_another_token_is_not_let_in(fleet: Fleet) -> None:
    host = fleet.host("w1")
    address = json.loads((host.home / "state" / "cluster.json").read_text())["ray_address"]
    host.qd("leave")
    (host.folder / "tmp" / "token").write_text("f" * 64)
    done = host.qd("join", address, "--token-file", "/tmp/token", check=False)
    assert (done.returncode, "refuses this token" in done.stderr) == (NotAllowed.exit_code, True)
    assert list(host.processes()) == [1], "nothing is left of the attempt"
    fleet.join(host)
    fleet.until_node("w1", "READY")


def test_the_raylet_of_a_host_is_killed(fleet: Fleet) -> None:
    job = fleet.steady()
    ranks, host = fleet.ranks(job), fleet.host("w1")
    raylets = host.pids_of("raylet")
    host.kill(*raylets)
    ticks = fleet.ticks(job, 1, 0), fleet.ticks(job, 1, 1)
    until(lambda: host.pids_of("raylet") not in ([], raylets), "another raylet")
    # Its part of the gang is reserved anew as soon as it is back, so that Ray gives it to nobody else.
    addresses = [fleet.host("w1").address, fleet.host("w2").address]
    until(lambda: fleet.reserved(job) == addresses, "the reservation")
    until(lambda: fleet.ticks(job, 1, 0) > ticks[0] + 50, "news of rank 0")
    until(lambda: fleet.ticks(job, 1, 1) > ticks[1] + 50, "news of rank 1")
    assert fleet.ranks(job) == ranks
    assert fleet.run_on(ranks)
    view = fleet.finish(job)
    assert len(view["attempts"]) == 1
    fleet.check_once(job)


def test_the_heads_ray_and_controller_are_killed_together(fleet: Fleet) -> None:
    """The workers' Ray has to join a new head; the ranks know nothing of it."""
    job = fleet.steady()
    ranks, head = fleet.ranks(job), fleet.head
    controllers = [pid for pid, words in head.processes().items() if "agents.daemon" in words]
    head.kill(*head.pids_of("gcs_server"), *head.pids_of("raylet"), *controllers)
    before = {rank: fleet.ticks(job, 1, rank) for rank in (0, 1)}
    for rank in (0, 1):

        def ticked(rank: int = rank) -> bool:
            return fleet.ticks(job, 1, rank) > before[rank] + 50

        until(ticked, f"rank {rank}")
    assert fleet.ranks(job) == ranks
    assert fleet.run_on(ranks)
    view = fleet.finish(job)
    assert len(view["attempts"]) == 1
    fleet.check_once(job)


def test_a_partition_shorter_than_the_lease_restarts_nothing(fleet: Fleet) -> None:
    job = fleet.steady()
    ranks, host = fleet.ranks(job), fleet.host("w1")
    host.unplug()
    fleet.until_node("w1", "SUSPECT")
    time.sleep(5)  # the length of the partition is what is tested
    assert fleet.run_on(ranks)
    behind = fleet.ticks(job, 1, 0)
    host.plug()
    until(lambda: fleet.ticks(job, 1, 0) > behind + 100, "the log to catch up")
    assert fleet.ranks(job) == ranks
    assert fleet.run_on(ranks)
    view = fleet.finish(job)
    assert len(view["attempts"]) == 1
    fleet.check_once(job)


def test_a_partition_longer_than_the_lease_stops_the_isolated_ranks_first(fleet: Fleet) -> None:
    """They stop themselves, and only then does the replacement start: the clocks tell."""
    job = fleet.steady(lease=10.0)
    ranks, host = fleet.ranks(job), fleet.host("w1")
    fleet.spare(True)
    host.unplug()
    fleet.until_ticking(job, 2)
    assert not host.runs(ranks["w1"])
    # The isolated host is still alone with what it knows: its disk is the witness.
    record = fleet.guards_record(host, job, 1, "exit.json")
    assert record["outcome"] == "fenced"
    stopped = max(rank["ended_at"] for rank in record["ranks"])
    assert sorted(fleet.ranks(job, 2)) == ["head", "w2"]
    records = [
        fleet.guards_record(other, job, 2, "state.json") for other in (fleet.head, fleet.host("w2"))
    ]
    started = min(rank["started_at"] for record in records for rank in record["ranks"])
    assert stopped < started
    lease = float((fleet.attempt_folder(host, job, 1) / "lease").read_text())
    assert lease < fleet.started_at(job, 2)
    host.plug()
    fleet.until_node("w1", "READY")
    view = fleet.finish(job)
    assert [attempt["state"] for attempt in view["attempts"]] == ["LOST", "SUCCEEDED"]
    until(lambda: fleet.attempt(job, 1)["ranks"][0]["state"] != "RUNNING", "the news of its end")
    fleet.check_once(job)
    fleet.spare(False)


@pytest.mark.slow
def test_a_host_is_switched_off_and_comes_back(fleet: Fleet) -> None:
    job = fleet.steady(lease=20.0)
    host = fleet.host("w1")
    fleet.spare(True)
    off = time.monotonic()
    host.power_off()
    fleet.until_node("w1", "LOST", patience=75)
    assert time.monotonic() - off < 75
    fleet.until_ticking(job, 2)
    assert sorted(fleet.ranks(job, 2)) == ["head", "w2"]
    lease = float((fleet.attempt_folder(host, job, 1) / "lease").read_text())
    assert lease < fleet.started_at(job, 2), "nobody could know that the first copy was dead"
    fleet.spare(False)
    fleet.join_again(host)
    view = fleet.finish(job)
    assert [attempt["state"] for attempt in view["attempts"]] == ["LOST", "SUCCEEDED"]


def test_a_gang_waits_with_its_reason_when_too_few_hosts_are_left(fleet: Fleet) -> None:
    job = fleet.steady(lease=10.0)
    host = fleet.host("w2")
    host.power_off()
    view = fleet.wait(job, "QUEUED")
    until(lambda: "2 node" in fleet.job(job)["reason"], "the reason")
    assert not fleet.host("w1").runs(fleet.ranks(job)["w1"]), "half a gang is no gang"
    fleet.join_again(host)
    fleet.until_ticking(job, 2)
    view = fleet.finish(job)
    assert [attempt["state"] for attempt in view["attempts"]] == ["LOST", "SUCCEEDED"]


PEERS = """
import os, socket, sys, time
rank, address = int(os.environ["RANK"]), ("", int(os.environ["MASTER_PORT"]))
if rank == 0:
    with socket.create_server(address) as server:
        peer, _ = server.accept()
    peer.settimeout(3)
    print("begin", flush=True)
    while peer.recv(1) == b".":
        pass
else:
    while True:
        try:
            peer = socket.create_connection((os.environ["MASTER_ADDR"], address[1]), 1)
            break
        except OSError:
            time.sleep(0.1)
    print("begin", flush=True)
    while not os.path.exists("/tmp/gate"):
        peer.send(b".")
        time.sleep(0.1)
    peer.send(b"e")
"""
"""Rank 0 fails when it has not heard of rank 1 for three seconds, as a collective does."""


def test_a_rank_that_fails_because_its_peers_host_is_gone_costs_no_restart(fleet: Fleet) -> None:
    for host in fleet.network.hosts:
        (host.folder / "tmp" / "gate").unlink(missing_ok=True)
    job = fleet.submit(f"{sys.executable} -c {shlex.quote(PEERS)}", lease=10.0, max_restarts=0)
    until(lambda: all("begin" in fleet.log(job, 1, rank) for rank in (0, 1)), "the ranks to meet")
    (second,) = [rank["node"] for rank in fleet.attempt(job, 1)["ranks"] if rank["rank"] == 1]
    fleet.spare(True)
    fleet.host(second).power_off()
    view = fleet.wait(job, "STOPPING")
    assert "exit code 1" in view["reason"], "at first it looks like a failure"
    until(lambda: all("begin" in fleet.log(job, 2, rank) for rank in (0, 1)), "the next attempt")
    fleet.open_gate()
    view = fleet.wait(job)
    assert [attempt["state"] for attempt in view["attempts"]] == ["LOST", "SUCCEEDED"]
    fleet.spare(False)
    fleet.join_again(fleet.host(second))


def test_a_gang_whose_one_host_cannot_start_it_holds_nothing(fleet: Fleet) -> None:
    python = fleet.host("w1").folder / "tmp" / "python"
    python.symlink_to(sys.executable)
    began = time.monotonic()
    job = fleet.submit("python -c pass", python="/tmp/python")
    view = fleet.wait(job)
    assert view["state"] == "FAILED"
    assert "w2" in view["reason"]
    fleet.until_well()
    assert time.monotonic() - began < 60
    # Ray too has everything back: it grants all of it again.
    with_all = fleet.steady()
    fleet.finish(with_all)
