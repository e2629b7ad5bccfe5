"""What the names of checkpoints tell."""

from __future__ import annotations

import pytest

from jobs.checkpoints.names import read_name


@pytest.mark.parametrize(
    ("name", "order", "step"),
    [
        ("checkpoint-500", 500, 500),
        ("step-200", 200, 200),
        ("global_step1500", 1500, 1500),
        ("epoch=3-step=2000.ckpt", 2000, 2000),
        ("epoch=3-val_loss=0.25.ckpt", 3, None),
        ("epoch_12.pt", 12, None),
        ("model_00042.pt", 42, 42),
        ("iter_0000100", 100, 100),
        ("ckpt.pt", None, None),
        ("last.ckpt", None, None),
        ("rank0.pt", None, None),
        ("step-9" + "9" * 30, None, None),
    ],
)
def test_step_and_order(name: str, order: int | None, step: int | None) -> None:
    found = read_name(name)
    assert (found.order, found.step) == (order, step)


def test_earlier_ones_of_a_kind_have_its_series() -> None:
    for one, other in [
        ("checkpoint-500", "checkpoint-1000"),
        ("epoch=3-step=2000-loss=0.25.ckpt", "epoch=4-step=3000-loss=0.1.ckpt"),
        ("step100-rank0.pt", "step200-rank0.pt"),
    ]:
        assert read_name(one).series == read_name(other).series


def test_ranks_shards_and_kinds_have_series_of_their_own() -> None:
    names = [
        "step100-rank0.pt",
        "step100-rank1.pt",
        "step100_mp_rank_00.pt",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "optim_100.pt",
        "model_100.pt",
    ]
    assert len({read_name(name).series for name in names}) == len(names)
    assert read_name("step100-rank7.pt").step == 100
    assert read_name("model-00001-of-00002.safetensors").step is None
