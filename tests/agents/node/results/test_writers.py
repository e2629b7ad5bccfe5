"""Event files belong to the rank whose process wrote them, whichever launcher has started it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.node.results.writers import Opened, Processes, Writer, first_read, opened

NAME = "runs/a/events.out.tfevents.{at}.host.{pid}.0"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("events.out.tfevents.1764500000.gpu-1.4711.0", ("gpu-1", 4711)),
        ("events.out.tfevents.1764500000.gpu-1.4711.12.v2", ("gpu-1", 4711)),
        ("events.out.tfevents.1764500000.ip-10.0.0.1.lan.4711.0", ("ip-10.0.0.1.lan", 4711)),
        ("events.out.tfevents.1764500000.host.4711.0.eval", ("host", 4711)),
        ("events.out.tfevents.1764500000.host", None),
        ("events.out.tfevents", None),
    ],
)
def test_a_name_says_which_process(name: str, found: tuple[str, int] | None) -> None:
    expected = found and Opened("runs/a", found[0], 1764500000, found[1])
    assert opened(f"runs/a/{name}") == expected


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    def process(pid: int, inside: int, **env: str) -> None:
        folder = tmp_path / str(pid)
        folder.mkdir()
        text = "".join(f"{name}={value}\0" for name, value in env.items())
        (folder / "environ").write_bytes(text.encode() + b"odd=\xff\0")
        (folder / "status").write_text(f"Name:\tpython\nNSpid:\t{pid}\t{inside}\nSeccomp:\t0\n")

    process(70, 7, QD_RUN="j1.1", QD_RANK="0", QD_WORLD_SIZE="1", RANK="3", WORLD_SIZE="4")
    process(71, 8, QD_RUN="j1.1", QD_RANK="0", QD_WORLD_SIZE="1")
    process(72, 9, QD_RUN="j1.1", QD_RANK="2", QD_WORLD_SIZE="4")
    process(7, 7, QD_RUN="j2.1", QD_RANK="0", QD_WORLD_SIZE="1", RANK="9", WORLD_SIZE="10")
    return tmp_path


@pytest.mark.parametrize(
    ("pid", "contained", "rank"),
    [
        (70, False, 3),
        (71, False, None),  # it does not say
        (72, False, 2),  # of several plain ranks
        (7, False, None),  # another job's
        (7, True, 3),  # the number inside of the container
        (99, False, None),
    ],
)
def test_a_process_says_its_rank(proc: Path, pid: int, contained: bool, rank: int | None) -> None:
    processes = Processes("j1.1", contained=contained, proc=proc)
    assert processes.rank_of(NAME.format(at=1, pid=pid)) == rank


def test_who_does_not_say_a_rank_is_told_by_its_curves() -> None:
    first = NAME.format(at=100, pid=50)
    known = {first: Writer(0, ["loss"], 130.0)}

    def rank(tags: list[str], since: float, **changes: Any) -> int | None:
        path = NAME.format(**{"at": 101, "pid": 51, **changes})
        return first_read(path, tags, since, known, 0).rank

    assert rank(["loss", "acc"], 101.0) == 1
    assert rank(["acc"], 101.0) == 0, "another curve"
    assert rank(["loss"], 140.0) == 0, "it goes on where the first has ended"
    assert rank(["loss"], 120.0, at=120) == 0, "it was started later"
    assert rank(["loss"], 101.0, pid=50) == 0, "a second file of the same process"
    other = first_read(f"b/{first}", ["loss"], 101.0, known, 0)
    assert other.rank == 0, "another folder"
