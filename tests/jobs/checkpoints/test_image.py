"""What is copied of a gang: only what is whole on all of its nodes."""

from __future__ import annotations

from typing import Any

from jobs.checkpoints.image import newest
from jobs.wire.messages import HeldFile, HeldUnit


def unit(name: str, *paths: str, **changes: Any) -> HeldUnit:
    files = [
        HeldFile(path=path, mode=0o644, size=3, mtime=100.0, sha256="a" * 64, held=True)
        for path in paths or (name,)
    ]
    found: dict[str, Any] = {
        "name": name,
        "whole": True,
        "files": files,
        "missing": [],
        "sharded": False,
        "headed_at": None,
        "step": None,
    }
    return HeldUnit(**{**found, **changes})  # type: ignore[typeddict-item]


def unwhole(name: str) -> HeldUnit:
    return {**unit(name), "whole": False, "files": []}


def names(*parts: list[HeldUnit], copying: Any = "latest") -> list[str]:
    found = newest({f"n{number}": part for number, part in enumerate(parts)}, copying)
    return [] if found is None else sorted(found.files)


def test_the_newest_of_each_series() -> None:
    part = [unit("step-1.pt"), unit("step-10.pt"), unit("step-9.pt"), unit("best.pt")]
    assert names(part) == ["best.pt", "step-10.pt"]
    assert len(names(part, copying="all")) == 4
    assert names([*part, unwhole("step-11.pt")]) == ["best.pt", "step-10.pt"]
    assert names([unwhole("last.pt")]) == names([]) == []


def test_its_step_and_its_time() -> None:
    found = newest({"n": [unit("step-7.pt"), unit("last.pt", step=9)]}, "latest")
    assert found is not None and (found.step, found.at) == (7, 100.0)
    found = newest({"n": [unit("last.pt", step=9)]}, "latest")
    assert found is not None and found.step == 9


def dcp(name: str, *shards: str, headed_at: float | None = None, **changes: Any) -> HeldUnit:
    paths = [f"{name}/{shard}" for shard in shards]
    if headed_at is not None:
        paths.append(f"{name}/.metadata")
    return unit(name, *paths, sharded=True, headed_at=headed_at, **changes)


def test_shards_of_two_nodes_are_one_checkpoint() -> None:
    first = dcp("step-1", "__0_0.distcp", headed_at=101.0, missing=["__1_0.distcp"])
    second = dcp("step-1", "__1_0.distcp")
    paths = ["step-1/.metadata", "step-1/__0_0.distcp", "step-1/__1_0.distcp"]
    assert names([first], [second]) == paths
    assert names([first], []) == [], "a shard is lacking"
    assert names([], [second]) == [], "nobody says which shards belong to it"
    assert names([first], [unwhole("step-1")]) == []
    late = dcp("step-1", "__1_0.distcp", headed_at=None)
    late["files"][0]["mtime"] = 200.0
    assert names([first], [late]) == [], "of the next save to the same folder"


def test_who_has_an_earlier_share_will_have_this_one_too() -> None:
    first = [unit("step-1", "step-1/a"), unit("step-2", "step-2/a")]
    assert names(first, [unit("step-1", "step-1/b")]) == ["step-1/a", "step-1/b"]
    assert names(first, []) == ["step-2/a"], "the other writes none"
    both = [unit("step-1", "step-1/b"), unit("step-2", "step-2/b")]
    assert names(first, both) == ["step-2/a", "step-2/b"]


def test_of_two_files_of_a_name_the_first_nodes() -> None:
    second = unit("last.pt")
    second["files"][0]["sha256"] = "b" * 64
    found = newest({"n1": [unit("last.pt")], "n2": [second]}, "latest")
    assert found is not None
    assert found.files["last.pt"].node == "n1"


def test_a_link_comes_with_what_it_leads_to() -> None:
    link = unit("latest")
    link["files"][0]["link"] = "step-2"
    steps = [unit("step-1", "step-1/a"), unit("step-2", "step-2/a")]
    assert names([link, *steps]) == ["latest", "step-2/a"]
    assert names([link, steps[0], unwhole("step-2")]) == ["step-1/a"]
