"""Which checkpoints are whole, by the layouts of those who write them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.checkpoints.units import SETTLED, Seen, units

FRESH = Seen(size=10, mtime=100, still=0.0)
SEEN = replace(FRESH, still=2.0)
DONE = replace(SEEN, form="whole")


def whole(files: dict[str, Seen], placed: tuple[str, ...] = ()) -> list[str]:
    return [unit.name for unit in units(files, placed) if unit.whole]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (FRESH, False),
        (replace(FRESH, form="whole"), False),  # one look is not two
        (SEEN, False),  # of no known form, and still new
        (replace(SEEN, still=SETTLED), True),
        (replace(SEEN, renamed=True), True),
        (replace(FRESH, renamed=True), True),
        (DONE, True),
        (replace(SEEN, form="torn", still=10 * SETTLED, renamed=True), False),
    ],
)
def test_a_file(seen: Seen, expected: bool) -> None:
    assert bool(whole({"last.pt": seen})) is expected


def test_a_link_is_worth_what_it_leads_to() -> None:
    link = replace(SEEN, link="step-1")
    assert whole({"latest": link, "step-1/a.pt": FRESH}) == ["latest"]
    assert whole({"latest": link}) == []
    assert whole({"latest": replace(SEEN, link="/data/step-1")}) == []


def test_dcp_is_whole_with_its_metadata_last() -> None:
    names = frozenset({"__0_0.distcp", "__1_0.distcp"})
    metadata = replace(SEEN, mtime=200, shards=names)
    first = {"step-1/__0_0.distcp": SEEN}
    both = {**first, "step-1/__1_0.distcp": SEEN, "step-1/.metadata": metadata}
    assert whole(both) == ["step-1"]
    torn = units({**first, "step-1/.metadata": metadata})[0]
    assert torn.whole and torn.missing == {"__1_0.distcp"}, "another node has to have it"
    newer = {**both, "step-1/__1_0.distcp": replace(SEEN, mtime=300)}
    assert whole(newer) == [], "the next save to the same folder has begun"
    writing = {**both, "step-1/.metadata": replace(metadata, still=0.0)}
    assert whole(writing) == []
    assert whole({**both, "step-1/.metadata": replace(metadata, shards=frozenset())}) == []


def test_lightnings_folder_has_meta_pt_too() -> None:
    metadata = replace(SEEN, mtime=200, shards=frozenset({"__0_0.distcp"}))
    files = {"last.ckpt/__0_0.distcp": SEEN, "last.ckpt/.metadata": metadata}
    assert whole(files) == []
    assert whole({**files, "last.ckpt/meta.pt": replace(DONE, mtime=300)}) == ["last.ckpt"]


def test_hugging_face_writes_its_trainer_state_last() -> None:
    files = {"checkpoint-5/model.safetensors": DONE, "checkpoint-5/config.json": SEEN}
    assert whole(files) == []
    files["checkpoint-5/trainer_state.json"] = SEEN
    assert whole(files) == ["checkpoint-5"]
    files["checkpoint-5/optimizer.pt"] = replace(SEEN, form="torn")
    assert whole(files) == []


def test_another_folder_is_whole_once_nothing_more_comes() -> None:
    files = {"epoch-1/model.pt": DONE, "epoch-1/optim.pt": DONE}
    assert whole(files) == []
    assert whole(files, placed=("epoch-1",)) == ["epoch-1"], "renamed into place"
    old = {path: replace(seen, still=SETTLED) for path, seen in files.items()}
    assert whole(old) == ["epoch-1"]
    assert whole({**old, "epoch-1/more.pt": DONE}) == []
