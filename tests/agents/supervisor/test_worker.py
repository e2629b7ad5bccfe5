"""A supervisor that has joined a cluster elsewhere: it runs Ray and nothing else."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.supervisor import head, network, teardown
from agents.supervisor import record as records
from agents.supervisor.__main__ import stop
from agents.supervisor.policy import Asked, Size, check_fits, host_and_port
from agents.supervisor.supervisor import HEAD_AGAIN, Settings, Supervisor
from jobs.base.errors import Conflict, InvalidInput
from jobs.base.places import Places

from .conftest import end, until

SLEEP = "import time; time.sleep(60)"
TWO = Size(2, 0, simulated=False)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """The port of a head that is not up yet."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture
def settings(
    where: Places, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    def command(
        places: Places, node: str, size: Size, address: str, to_join: str, ports: int | None
    ) -> list[str]:
        return [sys.executable, "-c", SLEEP, f"--temp-dir={head.folder(places)}", to_join]

    monkeypatch.setattr(head, "join_command", command)
    asked = Asked(head=f"127.0.0.1:{listener.getsockname()[1]}")
    yield Settings(where, asked, TWO, "w1", "127.0.0.1", "none", 0o022, dict(os.environ))
    teardown.take_down(where, records.read(where.cluster_file))


def let_go(supervisor: Supervisor) -> None:
    """End Ray's stand-in, and leave no descriptor and no zombie of it."""
    ray = supervisor.ray
    end(ray.process)
    if ray._child is not None:
        ray._child.wait()
    assert ray.descriptor is not None
    os.close(ray.descriptor)


def test_a_worker_waits_for_its_head_and_counts_no_failure(
    settings: Settings, listener: socket.socket
) -> None:
    supervisor = Supervisor(settings, None)
    assert list(supervisor.programs) == ["ray"], "no controller"
    supervisor._start_what_is_due()
    assert supervisor.ray.process is None
    assert supervisor.ray.restarts == []
    record = records.read(settings.places.cluster_file)
    assert record is not None
    assert "no head answers" in record["ray"]["exit"]
    assert record["controller"] is None
    listener.listen()
    assert supervisor.ray.due is not None
    supervisor.ray.due -= HEAD_AGAIN
    supervisor._start_what_is_due()
    process = supervisor.ray.process
    assert process is not None
    assert process.alive
    let_go(supervisor)


def test_another_supervisor_adopts_a_workers_ray(
    settings: Settings, listener: socket.socket
) -> None:
    listener.listen()
    first = Supervisor(settings, None)
    first._start_what_is_due()
    second = Supervisor(settings, records.read(settings.places.cluster_file))
    assert second.ray.process == first.ray.process
    assert second.ray.due is None
    let_go(second)
    let_go(first)


def test_leaving_takes_the_token_away(settings: Settings, listener: socket.socket) -> None:
    listener.listen()
    settings.places.ray_token.write_text("secret")
    supervisor = Supervisor(settings, None)
    supervisor._start_what_is_due()
    process = supervisor.ray.process
    assert process is not None
    stop(settings.places, ranks=False)
    until(lambda: not process.alive)
    let_go(supervisor)
    assert not settings.places.ray_token.exists()


@pytest.mark.parametrize("text", ["", "head", "head:", ":1", "head:x", "head:0", "head:70000"])
def test_what_is_no_address_of_a_head(text: str) -> None:
    with pytest.raises(InvalidInput, match="address of a head"):
        host_and_port(text)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 64, "a/b"])
def test_what_is_no_name_of_a_node(name: str) -> None:
    with pytest.raises(InvalidInput, match="node's name"):
        Asked(name=name)


def test_a_machine_is_a_head_or_a_worker() -> None:
    worker = Asked(head="h:1")
    for up in (Asked(), Asked(cpus=2)):
        with pytest.raises(Conflict, match="worker of h:1") as caught:
            check_fits(up, worker, TWO)
        assert "qd leave" in caught.value.hint
    with pytest.raises(Conflict, match="cluster of its own") as caught:
        check_fits(worker, Asked(), TWO)
    assert "qd down" in caught.value.hint


@pytest.mark.parametrize(
    "asked",
    [Asked(head="h:2"), Asked(head="h:1", name="b"), Asked(head="h:1", address="10.0.0.1")],
)
def test_joining_differently_is_a_conflict(asked: Asked) -> None:
    before = Asked(head="h:1", name="a")
    check_fits(Asked(head="h:1"), before, TWO)
    with pytest.raises(Conflict, match="this node runs with another"):
        check_fits(asked, before, TWO)


def test_the_addresses_of_this_machine() -> None:
    assert network.own_address("127.0.0.1") == "127.0.0.1"
    assert network.own_address("localhost") == "127.0.0.1"
    for text, word in (("0.0.0.0", "every"), ("192.0.2.1", "not an address"), ("no such", "knows")):
        with pytest.raises(InvalidInput, match=word):
            network.own_address(text)
    assert network.address_towards("127.0.0.1:1") == "127.0.0.1"


def test_a_token_is_copied_for_its_owner_only(tmp_path: Path) -> None:
    given, kept = tmp_path / "given", tmp_path / "ray-token"
    given.write_text("a" * 64 + "\n")
    kept.write_text("the last cluster's")
    head.take_token(kept, given)
    assert kept.read_text() == "a" * 64
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    for content in ("", "short", "x" * 40 + " y"):
        given.write_text(content)
        with pytest.raises(InvalidInput, match="holds no token"):
            head.take_token(kept, given)
    with pytest.raises(InvalidInput, match="cannot read"):
        head.take_token(kept, tmp_path / "nowhere")
    assert kept.read_text() == "a" * 64
