"""The metrics of evaluations are scikit-learn's and Fairlearn's, on rows as they are and drawn again."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from agents.node.worker.quarterdeck_serve.evaluate import bootstrap, groups
from agents.node.worker.quarterdeck_serve.evaluate.metrics import Classified, Regressed, points
from agents.node.worker.quarterdeck_serve.evaluate.mistakes import Mistake


@st.composite
def classified(draw: st.DrawFn, classes: int | None = None) -> Classified:
    """Some rows of up to five classes; probabilities have ties, zeros and ones."""
    width = classes or draw(st.integers(2, 5))
    rows = draw(st.integers(2, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = generator.integers(0, 5, (rows, width)) + 1e-3 * draw(st.integers(0, 1))
    raw[raw.sum(axis=1) == 0] = 1
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    truth = generator.integers(0, width, rows)
    names = tuple(str(n) for n in range(width))
    positive = 1 if width == 2 else None
    return Classified(truth, probabilities.argmax(axis=1), names, probabilities, positive)


@st.composite
def weights(draw: st.DrawFn, rows: int) -> Any:
    seed = draw(st.integers(0, 2**32 - 1))
    return next(bootstrap.draws(rows, 1, seed))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_classification_is_what_scikit_learn_says_of_the_rows_drawn(data: st.DataObject) -> None:
    judged = data.draw(classified())
    drawn = data.draw(weights(len(judged.truth)))
    rows = np.repeat(np.arange(len(judged.truth)), drawn.astype(int))
    found = {name: metric(drawn) for name, metric in judged.metrics().items()}
    truth, said, width = judged.truth[rows], judged.predicted[rows], len(judged.classes)
    assert judged.probabilities is not None
    given_ = judged.probabilities[rows]
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, said))
    assert found["macro_f1"] == pytest.approx(
        sk.f1_score(truth, said, average="macro", zero_division=0)
    )
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, given_, labels=range(width)))
    if len(set(truth.tolist())) < width:
        assert math.isnan(found["roc_auc"])
    else:
        scores = given_[:, 1] if width == 2 else given_
        wanted = sk.roc_auc_score(truth, scores, multi_class="ovr", average="macro")
        assert found["roc_auc"] == pytest.approx(wanted)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(2, 50), seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 1e6])
)
def test_regression_is_what_scikit_learn_says_of_the_rows_drawn(
    rows: int, seed: int, scale: float
) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=rows) * scale
    judged = Regressed(truth, truth + generator.normal(size=rows) * scale)
    drawn = next(bootstrap.draws(rows, 1, seed))
    at = np.repeat(np.arange(rows), drawn.astype(int))
    found = {name: metric(drawn) for name, metric in judged.metrics().items()}
    t, p = judged.truth[at], judged.predicted[at]
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(t, p))
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(t, p))
    if len(set(at.tolist())) > 1:
        assert found["r2"] == pytest.approx(sk.r2_score(t, p))


def test_calibration_error_of_known_bins() -> None:
    # 0.9 in bin 13 and 0.6 in bin 9: |0.5 - 0.9| * 2/3 + |1 - 0.6| * 1/3
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    judged = Classified(
        np.array([0, 1, 1]), probabilities.argmax(axis=1), ("a", "b"), probabilities
    )
    assert points(judged.metrics(), 3)["ece"] == pytest.approx(0.4)


@settings(max_examples=60, deadline=None)
@given(judged=classified(2), seed=st.integers(0, 2**32 - 1), count=st.integers(2, 4))
def test_fairness_is_what_fairlearn_says(judged: Classified, seed: int, count: int) -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    rows = len(judged.truth)
    names = np.random.default_rng(seed).integers(0, count, rows)
    cut = groups.slices("group", names.tolist())
    found = points(groups.fairness(judged, cut), rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in (
            "demographic_parity_difference",
            "demographic_parity_ratio",
            "equalized_odds_difference",
            "equalized_odds_ratio",
            "equal_opportunity_difference",
            "equal_opportunity_ratio",
        ):
            of = getattr(fairlearn, name)
            wanted = of(judged.truth, judged.predicted, sensitive_features=names)
            assert found[name] == pytest.approx(wanted, nan_ok=True), name
        frame = fairlearn.MetricFrame(
            metrics=sk.accuracy_score,
            y_true=judged.truth,
            y_pred=judged.predicted,
            sensitive_features=names,
        )
    assert found["accuracy_difference"] == pytest.approx(frame.difference())
    assert found["accuracy_ratio"] == pytest.approx(frame.ratio(), nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(judged=classified(), seed=st.integers(0, 2**32 - 1))
def test_a_slice_is_measured_as_if_it_were_all_the_data(judged: Classified, seed: int) -> None:
    rows = len(judged.truth)
    values = np.random.default_rng(seed).integers(0, 3, rows).tolist()
    for one in groups.slices("c", values):
        inner = judged.take(one.rows)
        alone = points(inner.metrics(), len(one.rows))
        for name, value in points(groups.on(judged, one), rows).items():
            assert value == pytest.approx(alone[name])


def test_the_interval_covers_what_it_should() -> None:
    """Of 200 samples of a coin with 0.8, the interval of the accuracy has 0.8 in it in about 95 %."""
    generator, inside = np.random.default_rng(1), 0
    for _ in range(200):
        truth = np.ones(100, np.int64)
        predicted = (generator.random(100) < 0.8).astype(np.int64)
        judged = Classified(truth, predicted, ("no", "yes"))
        found, _samples = bootstrap.sampled(
            {"accuracy": judged.metrics()["accuracy"]}, 100, resamples=200
        )
        low, high = found["accuracy"].low, found["accuracy"].high
        assert low is not None and high is not None
        inside += low <= 0.8 <= high
    assert 180 <= inside <= 199


def test_the_interval_of_a_difference_holds_the_difference() -> None:
    """Two groups that are treated alike: nearly every resample has some difference."""
    truth = np.array([0, 1] * 40)
    judged = Classified(truth, truth, ("no", "yes"), None, 1)
    cut = groups.slices("group", [0, 0, 1, 1] * 20)
    found, _ = bootstrap.sampled(groups.fairness(judged, cut), 80, resamples=100)
    told = found["demographic_parity_difference"]
    assert (told.value, told.low) == (0, 0) and told.high is not None and told.high > 0.1


def test_the_same_rows_are_drawn_for_every_model() -> None:
    assert bootstrap.mark(50) == bootstrap.mark(50) != bootstrap.mark(51)
    for one, other in zip(bootstrap.draws(20, 5), bootstrap.draws(20, 5), strict=True):
        assert (one == other).all() and one.sum() == 20


def test_slices_by_number_word_and_too_many_words() -> None:
    words = groups.slices("sex", ["f", "m", None, "f"])
    assert [(one.value, one.rows.tolist()) for one in words] == [
        ("f", [0, 3]),
        ("m", [1]),
        ("missing", [2]),
    ]
    assert [one.value for one in groups.slices("n", [1.0, 2, "1.0"])] == ["1", "2"]
    ages = groups.slices("age", [*map(float, range(99)), float("nan")])
    assert [len(one.rows) for one in ages] == [25, 24, 25, 25, 1]
    assert ages[0].value == "0 to under 24.5" and ages[-1].value == "missing"
    with pytest.raises(Mistake, match="100 different values"):
        groups.slices("name", [f"n{n}" for n in range(100)])


def test_no_mistake_in_few_rows_is_no_certainty() -> None:
    judged = Classified(np.ones(20, np.int64), np.ones(20, np.int64), ("no", "yes"))
    found, _ = bootstrap.sampled({"accuracy": judged.metrics()["accuracy"]}, 20, resamples=50)
    told = bootstrap.proportion(found["accuracy"], 20)
    assert (told.value, told.high) == (1, 1) and told.low == pytest.approx(0.8389, abs=1e-4)
    assert bootstrap.proportion(bootstrap.Interval(0.0, 0.0, 0.0), 20).high == pytest.approx(
        0.1611, abs=1e-4
    )
