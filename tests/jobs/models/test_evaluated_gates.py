"""Gates on evaluations: intervals, paired differences, slices, fairness, and what the result says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.models.comparing import difference, quantile
from jobs.models.conditions import parse_condition
from jobs.models.digests import digest_of
from jobs.models.evaluations import Evaluated, checked_report, checked_samples, intervals
from jobs.models.gates import Gate, Measured, aliases_of, evaluate, sampled

RESAMPLES = 1000
DATA = "sha256:data"


def ends(value: float, low: float | None, high: float | None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


def measured(
    version: str,
    right: Any = (1,) * 90 + (0,) * 10,
    *,
    pairing: str = "p",
    data: str = "test@1",
    name: str = "e1",
    **over: Any,
) -> Measured:
    """A version that is right in some rows (1) and wrong in others, and its evaluation."""
    rows = np.array(right, float)
    generator = np.random.default_rng(7)  # the same draws for each version
    samples = [
        float(rows[generator.integers(0, len(rows), len(rows))].mean()) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(samples, [0.025, 0.975])
    report: dict[str, Any] = {
        "metrics": {"accuracy": ends(float(rows.mean()), float(low), float(high))},
        "slices": [
            {"column": "sex", "value": "f", "metrics": {"accuracy": ends(0.8, 0.7, 0.9)}},
            {"column": "sex", "value": "m", "metrics": {"accuracy": ends(0.95, 0.9, 1.0)}},
            {"column": "age of day", "value": "1 to 2", "metrics": {"accuracy": ends(1, None, None)}},
        ],
        "fairness": [
            {"column": "sex", "metrics": {"demographic_parity_difference": ends(0.08, 0.02, 0.14)}}
        ],
        "pairing": pairing,
    } | over  # fmt: skip
    digest = f"sha256:{data}"
    one = Evaluated(
        name, version, "sha256:m", data, digest, "sha256:e", report, {"accuracy": samples}
    )
    return Measured(version, "sha256:m", "j1.1", {"val_acc": 0.97}, [one])


def held(
    condition: str, candidate: Measured, production: Measured | None = None, **gate: Any
) -> Any:
    asked = Gate(name="g", conditions=[condition], **{"data": "test", **gate})
    others = {} if production is None else {"production": production}
    result = evaluate(asked, candidate, others, at="now", by="ann")
    (one,) = result["conditions"]
    assert result["passed"] is one["passed"]
    return one


@pytest.mark.parametrize(
    ("text", "key", "keys"),
    [
        ("accuracy >= 0.9", "accuracy", ["accuracy"]),
        ("accuracy >= 0.9 in sex=f", "accuracy[sex=f]", ["accuracy[sex=f]"]),
        ("accuracy>=90% in every sex", "accuracy[sex=", ["accuracy[sex=f]", "accuracy[sex=m]"]),
        (
            'accuracy >= production - 1% in "age of day" = "1 to 2"',
            "accuracy[age of day=1 to 2]",
            ["accuracy[age of day=1 to 2]"],
        ),
        (
            "fairness.demographic_parity_difference <= 0.1 by sex",
            "fairness.demographic_parity_difference[sex]",
            ["fairness.demographic_parity_difference[sex]"],
        ),
        ("rmse <= production * 1.1 in every zip", "rmse[zip=", []),
    ],
)
def test_conditions_name_what_evaluations_measure(text: str, key: str, keys: list[str]) -> None:
    one = parse_condition(text)
    assert one.key() == key
    assert one.keys(list(intervals(measured("m:1").evaluations[0].report))) == keys


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fairness.demographic_parity_difference <= 0.1", "with `by COLUMN` at the end"),
        ("fairness.parity <= 0.1 by sex", "allowed: fairness.demographic_parity_difference"),
        ("accuracy >= 0.1 by sex", "else `in every sex`"),
        ("val_acc >= 0.1 in sex=f", "found 'val_acc' in a slice; allowed: accuracy"),
        ("accuracy >= 0.1 in", "allowed: METRIC OP LIMIT"),
        ("accuracy >= 0.1 in every", "allowed: METRIC OP LIMIT"),
        ("accuracy >= 0.1 in sex=", "allowed: METRIC OP LIMIT"),
    ],
)
def test_what_no_evaluation_measures_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="found") as caught:
        parse_condition(text)
    assert words in str(caught.value)


def test_the_worse_end_of_the_interval_counts() -> None:
    version = measured("m:2")
    low, high = (
        version.evaluations[0].report["metrics"]["accuracy"][end] for end in ("low", "high")
    )
    assert not held("accuracy >= 0.9", version)["passed"]  # the point is there, the interval is not
    assert held(f"accuracy >= {low - 0.001}", version)["passed"]
    assert held(f"accuracy <= {high + 0.001}", version)["passed"]
    assert not held("accuracy <= 0.9", version)["passed"]
    one = held("accuracy >= 0.9", version)
    assert one["measured"] == 0.9 and one["interval"] == [low, high]
    assert one["on"] == {
        "data": "test@1", "data_digest": "sha256:test@1", "evaluation": "e1", "evidence": "sha256:e",
    }  # fmt: skip
    assert (
        one["why"].startswith("accuracy is 0.9 (95 % from 0.8") and "on test@1 (e1)" in one["why"]
    )


def test_slices_and_fairness() -> None:
    version = measured("m:2")
    one = held("accuracy >= 0.75 in every sex", version)
    assert (one["passed"], one["metric"]) == (False, "accuracy[sex=f]")
    assert one["why"].startswith("the worst of 2: accuracy[sex=f] is 0.8")
    assert held("accuracy >= 0.85 in sex=m", version)["passed"]
    fair = "fairness.demographic_parity_difference <= {} by sex"
    assert held(fair.format(0.15), version)["passed"]
    assert not held(fair.format(0.1), version)["passed"]
    one = held('accuracy >= 0.1 in "age of day" = "1 to 2"', version)
    assert not one["passed"] and "has no interval" in one["why"]
    one = held("accuracy >= 0.1 in every zip", version)
    assert (
        one["why"] == "m:2 has no accuracy[zip=...] on test@1 (e1); evaluate it with --slices zip"
    )
    one = held("fairness.accuracy_ratio >= 0.1 by zip", version)
    assert one["why"].endswith("on test@1 (e1); evaluate it with --group-by zip")


def test_a_difference_is_paired() -> None:
    """Both are right in 90 of 100, the same ones: there is no difference, however wide each interval is."""
    one = held("accuracy >= production - 0.005", measured("m:2"), measured("m:1", name="e9"))
    assert one["passed"] and one["interval"] == [pytest.approx(0.005)] * 2
    assert one["against"] == {
        "alias": "production", "version": "m:1", "run": None, "value": 0.9,
        "evaluation": "e9", "evidence": "sha256:e",
    }  # fmt: skip
    # As many, but other ones: the point says equal, the interval says that nobody knows.
    other = measured("m:2", (0,) * 10 + (1,) * 90)
    one = held("accuracy >= production - 0.005", other, measured("m:1"))
    assert not one["passed"] and one["measured"] == 0.9
    assert one["interval"][0] < -0.005 < one["interval"][1] and "it may be below" in one["why"]
    better = measured("m:2", (1,) * 100)
    assert held("accuracy > production", better, measured("m:1"))["passed"]
    assert held("accuracy >= production * 1.01", better, measured("m:1"))["passed"]
    one = held("accuracy >= production + 15%", better, measured("m:1"))
    assert not one["passed"] and one["why"].endswith("paired): it may be below")
    worse = held("accuracy >= production - 0.1", measured("m:2", (0,) * 100), measured("m:1"))
    assert worse["why"].endswith("paired): it is below")


def test_what_is_not_of_the_same_rows_is_not_compared() -> None:
    for other in (measured("m:1", pairing="q"), measured("m:1", data="test@2")):
        one = held("accuracy >= production - 0.5", measured("m:2"), other)
        assert not one["passed"] and "not of the same rows" in one["why"]
        assert "evaluate m:1 on test@1 again" in one["why"]
    nothing = Measured("m:1", "sha256:n", None, {"accuracy": 0.1})
    one = held("accuracy >= production - 0.5", measured("m:2"), nothing)
    assert not one["passed"]
    assert one["why"].endswith("has no accuracy on test@1: `qd evaluate m:1 --data test@1`")
    assert held("accuracy >= production", measured("m:2"))["passed"]  # the first version
    assert not held("accuracy >= production", measured("m:2"), first="fail")["passed"]


def test_which_number_is_meant() -> None:
    """With `data`, evaluations; without, what the run has recorded, and else evaluations."""
    version = measured("m:2")
    version = Measured(
        version.name, version.digest, "j1.1", {"accuracy": 0.99}, version.evaluations
    )
    assert held("accuracy >= 0.95", version, data=None)["passed"]
    assert not held("accuracy >= 0.95", version)["passed"]
    bare = Measured("m:3", "sha256:b", "j2.1", {"accuracy": 0.99, "val_acc": 0.9})
    one = held("accuracy >= 0.95", bare)
    assert (one["passed"], one["why"]) == (
        False,
        "m:3 was not evaluated on test: `qd evaluate m:3 --data test`",
    )
    assert held("val_acc >= 0.9", bare)["passed"]  # no evaluation measures that
    one = held("val_acc >= 0.98", measured("m:2"), data=None)
    assert (one["measured"], one["on"]) == (0.97, None)
    unrecorded = Measured("m:2", "d", None, {}, version.evaluations)
    assert held("accuracy >= 0.8", unrecorded, data=None)["on"]["evaluation"] == "e1"
    one = held("mae <= 1 in every sex", bare, data=None)
    assert one["why"] == "m:3 was not evaluated: `qd evaluate m:3 --data DATASET`"


def test_only_what_is_compared_needs_samples() -> None:
    gate = Gate(
        name="g",
        conditions=["accuracy >= 0.5", "accuracy >= production in every sex", "x >= staging"],
        data="test",
    )
    report = measured("m:1").evaluations[0].report
    assert sampled(gate, report) == {"accuracy[sex=f]", "accuracy[sex=m]"}
    assert aliases_of(gate) == ["production", "staging"]


def test_a_gate_without_data_is_named_as_before() -> None:
    plain = Gate(name="g", conditions=["a >= 1"])
    assert plain.digest == digest_of({"conditions": ["a >= 1"], "first": "pass", "name": "g"})
    assert plain.digest != Gate(name="g", conditions=["a >= 1"], data="test").digest


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_quantiles_are_numpys(values: list[float], share: float, seed: int) -> None:
    assert quantile(sorted(values), share) == pytest.approx(
        float(np.quantile(values, share)), abs=1e-6
    )
    ours = np.random.default_rng(seed).normal(size=len(values)).tolist()
    condition = parse_condition("a >= production - 0.5")
    found = difference(condition, ours, values)
    wanted = np.quantile(np.array(ours) - (np.array(values) - 0.5), [0.025, 0.975])
    assert found == pytest.approx(tuple(wanted), abs=1e-6)


def test_resamples_without_a_value_are_left_out_together() -> None:
    condition = parse_condition("a >= production")
    assert difference(condition, [1.0, None, 3.0, 4.0], [1.0, 1.0, None, 1.0]) == pytest.approx(
        (0.075, 2.925)
    )
    assert difference(condition, [None, None, 1.0], [1.0, 1.0, 1.0]) is None
    assert difference(condition, [1.0], [1.0, 2.0]) is None
    assert difference(condition, None, [1.0]) is None


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b"null", b"{}", b'{"metrics": 3}', b'{"metrics": {"a": {"value": NaN}}}',
     b'{"metrics": {}, "slices": [], "fairness": [], "rows": "many", "pairing": "", "task": "", '
     b'"target": "", "samples": ""}'],
)  # fmt: skip
def test_a_report_that_is_none(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        checked_report(data)
    with pytest.raises(ValueError, match="not those"):
        checked_samples(data, {"samples": "sha256:0"})
