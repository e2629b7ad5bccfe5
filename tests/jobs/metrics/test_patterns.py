"""Numbers in what scripts print."""

from __future__ import annotations

import math
import time

import pytest

from jobs.metrics.patterns import READY, Place, Reader, expanded

NANOGPT = """\
step 0: train loss 4.2874, val loss 4.2823
iter 0: loss 4.2686, time 48416.92ms, mfu -100.00%
iter 10: loss 3.1903, time 12.04ms, mfu 30.76%
step 250: train loss 1.9653, val loss 2.0585
"""
KERAS = """\
Epoch 1/2
1875/1875 - 3s - 1ms/step - accuracy: 0.8721 - loss: 0.4432 - val_accuracy: 0.9511 - val_loss: 0.1604
Epoch 2/2
  1/1875 - 0s - loss: 9.9\r1875/1875 - 2s - 1ms/step - accuracy: 0.9600 - loss: 1.3e-01
"""
HF = """\
{'loss': 2.3026, 'grad_norm': 1.5, 'learning_rate': 5e-05, 'epoch': 0.5}
{'eval_loss': '2.1', 'epoch': 1.0}
{'loss': nan, 'epoch': 1.5}
"""
LIGHTNING = (
    "Epoch 3:  50%|█████     | 5/10 [00:00<00:00, 50.01it/s, v_num=0, train_loss=1.250, lr=-inf]\n"
)


def _lines(name: str, text: str) -> list[tuple[str, int, float]]:
    readers = [(Reader(patterns), Place()) for patterns in READY[name]]
    return [
        (found.name, found.step, found.value)
        for line in text.split("\n")
        for reader, place in readers
        for found in reader.read(line, place)
    ]


def test_nanogpt() -> None:
    assert _lines("nanogpt", NANOGPT) == [
        ("train_loss", 0, 4.2874),
        ("val_loss", 0, 4.2823),
        ("loss", 0, 4.2686),
        ("time_ms", 0, 48416.92),
        ("mfu", 0, -100.0),
        ("loss", 10, 3.1903),
        ("time_ms", 10, 12.04),
        ("mfu", 10, 30.76),
        ("train_loss", 250, 1.9653),
        ("val_loss", 250, 2.0585),
    ]


def test_keras_and_a_bar_that_rewrites_its_line() -> None:
    assert _lines("keras", KERAS) == [
        ("accuracy", 1, 0.8721),
        ("loss", 1, 0.4432),
        ("val_accuracy", 1, 0.9511),
        ("val_loss", 1, 0.1604),
        ("accuracy", 2, 0.96),
        ("loss", 2, 0.13),
    ]


def test_the_trainer_of_transformers_counts_its_own_steps() -> None:
    found = _lines("hf", HF)
    assert found[:4] == [
        ("loss", 0, 2.3026),
        ("grad_norm", 0, 1.5),
        ("learning_rate", 0, 5e-05),
        ("epoch", 0, 0.5),
    ]
    assert found[4:6] == [("eval_loss", 0, 2.1), ("epoch", 1, 1.0)]
    assert found[6][:2] == ("loss", 1) and math.isnan(found[6][2])


def test_lightning() -> None:
    assert _lines("lightning", LIGHTNING) == [("train_loss", 3, 1.25), ("lr", 3, -math.inf)]


def test_a_number_before_the_first_step_belongs_to_none() -> None:
    reader, place = Reader({"step": "it ([0-9]+)", "loss": r"loss (\S+)"}), Place()
    assert reader.read("loss 3.0", place) == []
    assert reader.read("it 5", place) == []
    assert [(f.step, f.value) for f in reader.read("loss 2.5", place)] == [(5, 2.5)]
    assert reader.read("loss high", place) == []


@pytest.mark.parametrize(
    ("patterns", "why"),
    [
        ({"loss": "(a"}, "not a regular expression"),
        ({"loss": "(?=x)([0-9])"}, "look-around"),
        ({"loss": "loss"}, "0 groups"),
        ({"*": "([0-9]+)"}, "1 groups; allowed: two"),
        ({"loss": "x" * 501}, "501 characters"),
    ],
)
def test_what_is_no_pattern_is_refused(patterns: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Reader(patterns)


def test_an_unknown_set_is_named() -> None:
    with pytest.raises(ValueError, match="found 'nanogtp'; allowed: nanogpt"):
        expanded(["nanogtp"])


def test_no_expression_takes_long() -> None:
    reader = Reader({"loss": r"(?:(?:a+)+)+([0-9]+)$"})
    began = time.process_time()
    assert reader.read("a" * 16_000 + "!", Place()) == []
    assert time.process_time() - began < 1.0
