"""A monitor's statistics: judged by scipy's, by streams in which nothing happens, and by shifted ones."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as judge_stats
from scipy.spatial.distance import jensenshannon

from agents.node.staging.environment import WORKER_FOLDER
from agents.node.worker.quarterdeck_monitor import rows as rows_of
from agents.node.worker.quarterdeck_monitor import stats
from agents.node.worker.quarterdeck_monitor.judging import Task, judge
from agents.node.worker.quarterdeck_monitor.rows import Rows, of_log, of_table

LETTERS = list("abcdefgh")
CHANCES = [0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.04, 0.01]


@pytest.mark.parametrize("seed", range(4))
def test_the_statistics_are_scipys(seed: int) -> None:
    dice = np.random.default_rng(seed)
    one = np.sort(dice.normal(size=300).round(1 if seed % 2 else 9))  # with and without ties
    other = np.sort(dice.normal(0.2, 1.3, size=170).round(1 if seed % 2 else 9))
    d, p = stats.ks(one, other)
    wanted = judge_stats.ks_2samp(one, other, method="asymp")
    assert d == pytest.approx(wanted.statistic)
    assert p == pytest.approx(wanted.pvalue, rel=0.5)  # scipy corrects for small samples
    assert stats.wasserstein(one, other) == pytest.approx(
        judge_stats.wasserstein_distance(one, other)
    )
    table = dice.integers(20, 60, size=(5, 2)).astype(float)
    found = judge_stats.chi2_contingency(table, correction=False)
    assert stats.chi_square(table) == pytest.approx((found.statistic, found.pvalue))
    before, after = dice.random(6), dice.random(6)
    wanted = jensenshannon(before, after, base=2)
    assert stats.jensen_shannon(before, after) == pytest.approx(wanted)
    chances = list(dice.random(20) ** 3)
    assert stats.adjusted(chances) == pytest.approx(
        list(judge_stats.false_discovery_control(chances))
    )


@pytest.mark.parametrize("counts", [(0, 500, 6, 480), (3, 40, 9, 60), (0, 10, 0, 9), (5, 5, 2, 9)])
def test_shares_are_compared_exactly(counts: tuple[int, int, int, int]) -> None:
    one, of_one, other, of_other = counts
    total = one + other
    exact = judge_stats.hypergeom(of_one + of_other, total, of_one)
    wanted = min(1.0, 2 * min(float(exact.cdf(one)), float(exact.sf(one - 1))))
    assert stats.shares(*counts) == pytest.approx(wanted)


def test_large_shares_are_compared_nearly_so() -> None:
    exact = judge_stats.fisher_exact([[300, 9700], [360, 9640]]).pvalue
    assert stats.shares(300, 10_000, 360, 10_000) == pytest.approx(exact, rel=0.2)


def test_where_nothing_happens_alarms_are_no_more_than_the_rate_that_was_set() -> None:
    """50 features over 30 days of windows, for a quarter; the rate is one alarm a month."""
    months, size, level = 3, 500, 1 / 30
    dice, alarms = np.random.default_rng(7), 0
    for _ in range(months):
        numbers = [stats.Numbers(dice.normal(size=2000)) for _ in range(40)]
        kinds = [stats.Categories(dice.choice(LETTERS, 2000, p=CHANCES).tolist()) for _ in range(7)]
        names = [stats.Categories(dice.zipf(1.5, 2000).astype(str).tolist()) for _ in range(3)]
        for _ in range(30):
            windows = np.sort(dice.normal(size=(size, 40)), axis=0)
            chances = [one.p(windows[:, place])[1] for place, one in enumerate(numbers)]
            chances += [
                one.p(Counter(dice.choice(LETTERS, size, p=CHANCES).tolist()))[1] for one in kinds
            ]
            chances += [
                one.p(Counter(dice.zipf(1.5, size).astype(str).tolist()))[1] for one in names
            ]
            alarms += min(stats.adjusted(chances)) <= level
    assert alarms <= months + 2 * math.sqrt(months)
    assert alarms > 0  # and it is not blind


def test_a_classifier_sees_what_no_feature_shows_and_nothing_where_there_is_nothing() -> None:
    dice = np.random.default_rng(3)
    plain = dice.normal(size=(2000, 3))
    assert stats.classifier(plain, dice.normal(size=(1000, 3))).p > 0.01
    correlated = dice.normal(size=(1000, 3))
    correlated[:, 1] = 0.8 * correlated[:, 0] + 0.6 * correlated[:, 1]
    found = stats.classifier(plain, correlated)
    assert found.p < 1e-6
    assert found.accuracy > 0.6
    assert stats.classifier(np.zeros((100, 2)), np.zeros((100, 2))).p > 0.01


def features(dice: Any, count: int, **shifted: Any) -> Rows:
    rows = Rows(count)
    for place in range(45):
        rows.features[f"n{place}"] = dice.normal(size=count).tolist()
    for place in range(5):
        rows.features[f"c{place}"] = dice.choice(LETTERS, count, p=CHANCES).tolist()
    rows.outputs = {"n44"}
    rows.features |= {name: make(dice, count) for name, make in shifted.items()}
    return rows


def _lacking(dice: Any, count: int) -> list[Any]:
    return [None if dice.random() < 0.1 else value for value in dice.normal(size=count)]


def _new(dice: Any, count: int) -> Any:
    return dice.choice(["z", *LETTERS[:4]], count, p=[0.05, 0.4, 0.25, 0.2, 0.1]).tolist()


SHIFTS: dict[str, dict[str, Any]] = {
    "mean": {"n3": lambda dice, count: dice.normal(0.5, 1, count).tolist()},
    "variance": {"n3": lambda dice, count: dice.normal(0, 1.5, count).tolist()},
    "category": {"c1": lambda dice, count: dice.choice(LETTERS, count).tolist()},
    "new category": {"c1": _new},
    "missing": {"n3": _lacking},
    "prediction": {"n44": lambda dice, count: dice.normal(0.5, 1, count).tolist()},
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_is_found_within_two_windows(shift: str) -> None:
    dice = np.random.default_rng(11)
    reference, (name,) = features(dice, 2000), SHIFTS[shift]
    reports = [judge(Task(), reference, features(dice, 500, **SHIFTS[shift])) for _ in range(2)]
    found = [report for report in reports if report["status"] == "drift"]
    assert found
    first = found[0]["features"][0]
    assert (first["name"], first["drift"]) == (name, True)
    assert json.loads(json.dumps(found[0], allow_nan=False)) == found[0]
    if shift == "new category":
        assert first["new"][0]["value"] == "z"
    if shift == "missing":
        assert first["missing"][0] == 0
        assert 0.05 < first["missing"][1] < 0.15


def test_what_is_significant_but_small_is_no_drift() -> None:
    dice = np.random.default_rng(5)
    one, other = Rows(50_000), Rows(50_000)
    one.features = {"x": dice.normal(0, 1, 50_000).tolist()}
    other.features = {"x": dice.normal(0.05, 1, 50_000).tolist()}
    report = judge(Task(), one, other)
    assert report["features"][0]["q"] < 1e-4
    assert report["status"] == "ok"


def test_too_few_rows_are_never_ok() -> None:
    dice = np.random.default_rng(5)
    reference = features(dice, 2000)
    report = judge(Task(), reference, features(dice, 499))
    assert (report["status"], report["reason"]) == (
        "not enough data",
        "the window has 499 rows; 500 are wanted",
    )
    assert judge(Task(), features(dice, 20), features(dice, 500))["status"] == "not enough data"
    other = Rows(500, {"other": [1.0] * 500})
    report = judge(Task(), reference, other)
    assert (report["status"], report["unknown"]) == ("not enough data", ["other"])
    empty = Rows(500, {"n1": [None] * 500})
    report = judge(Task(least=50), Rows(500, {"n1": [None] * 500}), empty)
    assert report["status"] == "not enough data"


def line(inputs: Any, outputs: Any) -> str:
    return json.dumps({"id": "a", "at": 1.0, "v": "1", "i": inputs, "o": outputs})


def test_lines_of_the_log_become_rows_of_features() -> None:
    lines = [
        line({"x": {"s": [2, 2], "d": [1, 2, 3, None]}}, {"y": {"s": [2], "d": ["a", "b"]}}),
        line({"x": {"s": [1, 2], "d": None}}, {"y": {"s": [1], "d": ["c"]}}),  # redacted
        "{}",
        "not JSON",
    ]
    rows = of_log(lines)
    assert (rows.count, rows.outputs) == (3, {"y"})
    assert rows.features == {
        "x[0]": [1, 3, None], "x[1]": [2, None, None], "y": ["a", "b", "c"],
    }  # fmt: skip
    named = of_log(lines, ["age", "height"])
    assert set(named.features) == {"age", "height", "y"}
    wide = of_log([line({"x": {"s": [1, 600], "d": [0, 2] * 300}}, {})])
    assert wide.features == {"x.mean": [1], "x.std": [1], "x.min": [0], "x.max": [2]}
    large = of_log([line({"x": {"s": [9, 9], "m": [1, 2, 3, 4]}}, {"y": {"s": [9], "d": [1] * 9}})])
    assert large.features["x.max"] == [4]


def test_a_data_version_is_a_reference_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("age,name\n1.5,x\n,y\n")
    (tmp_path / "b.jsonl").write_text('{"age": 3, "name": null}\n')
    rows = of_table(tmp_path)
    assert rows.features == {"age": [1.5, None, 3], "name": ["x", "y", None]}
    with pytest.raises(ValueError, match="has no table"):
        of_table(tmp_path / "nothing")


def test_a_large_table_is_thinned_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_of, "MOST", 100)
    (tmp_path / "a.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(1, 1001)))
    rows = of_table(tmp_path)
    assert 50 <= rows.count <= 100
    assert len(set(np.diff(rows.features["n"]))) == 1
    assert rows.features["n"][-1] > 980


def test_as_the_job_that_it_is(tmp_path: Path) -> None:
    dice = np.random.default_rng(2)
    task = {"features": ["age"], "least": 100, "level": 0.03, "limit": 0.1}
    (tmp_path / "task.json").write_text(json.dumps(task))
    for name, mean in (("reference", 0), ("window", 2)):
        lines = [
            line({"x": {"s": [1, 1], "d": [value]}}, {"y": {"s": [1], "d": [0]}}) + "\n"
            for value in dice.normal(mean, 1, 200).tolist()
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    done = subprocess.run(
        [sys.executable, "-m", "quarterdeck_monitor"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(WORKER_FOLDER), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "drift: 1 features of 2\n"
    report = json.loads((tmp_path / "report.json").read_text())
    assert [f["name"] for f in report["features"] if f["drift"]] == ["age"]
