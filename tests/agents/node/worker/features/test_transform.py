"""A transform held to its declaration, and giving a row the same bits whichever rows it comes with."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.node.worker.quarterdeck_serve.features import FeatureError, Features, load
from agents.node.worker.quarterdeck_serve.features.transform import same
from tests.features import HARD, RIDES, write

PLAIN: dict[str, Any] = {"inputs": {"a": "number"}, "outputs": {"x": "float64"}}


def rides(rows: int) -> dict[str, Any]:
    dice = np.random.default_rng(rows)
    return {
        "at": ["2026-06-01T10:00:00Z"] * rows,
        "city": ["a"] * rows,
        "km": dice.exponential(9, rows),
        "minutes": dice.exponential(20, rows),
        "price": dice.random(rows),
    }


@pytest.mark.parametrize("rows", [1, 2, 7, 63, 64, 65, 200])
def test_a_row_has_the_same_bits_alone_and_among_others(tmp_path: Path, rows: int) -> None:
    features = Features(write(tmp_path))
    columns = rides(rows)
    whole = features(columns)
    assert (whole["x"].shape, whole["x"].dtype) == ((rows, 4), np.float64)
    for row in range(rows):
        alone = features({name: values[row : row + 1] for name, values in columns.items()})
        assert all(same(array, whole[name][row : row + 1]) for name, array in alone.items())


def test_no_rows_have_no_features(tmp_path: Path) -> None:
    features = Features(write(tmp_path))
    assert features(rides(0))["x"].shape == (0, 4)


def plain(tmp_path: Path, expression: str, **over: Any) -> Features:
    code = f"import numpy as np\ndef transform(rows):\n    a = rows['a']\n    return {expression}\n"
    return Features(write(tmp_path, code, {**PLAIN, **over}))


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("[a]", "a dict of arrays is wanted"),
        ("{}", "gives no 'x'"),
        ("{'x': a, 'y': a}", "'y', which is no declared output"),
        ("{'x': a[:3]}", r"shape \[3\] for 64 rows"),
        ("{'x': a.reshape(-1, 1)}", r"shape \[64, 1\]"),
        ("{'x': np.log(a)}", "row 1: output 'x' is not finite"),
        ("{'x': a.astype(str)}", "float64 is declared"),
    ],
)
def test_code_that_does_not_do_what_it_declares(
    tmp_path: Path, expression: str, words: str
) -> None:
    with pytest.raises(FeatureError, match=words):
        plain(tmp_path, expression)({"a": [1.0, -1.0, 2.0]})


def test_outputs_may_be_nan_where_that_is_declared(tmp_path: Path) -> None:
    features = plain(
        tmp_path, "{'x': np.log(a)}", outputs={"x": {"type": "float32", "missing": True}}
    )
    assert np.isnan(features({"a": [-1.0]})["x"]).all()
    with pytest.raises(FeatureError, match="not finite"):
        features({"a": [0.0]})


def test_columns_are_named_in_errors(tmp_path: Path) -> None:
    features = plain(tmp_path, "{'x': a}")
    with pytest.raises(FeatureError, match="column 'a' is missing; there are b"):
        features({"b": [1.0]})
    with pytest.raises(FeatureError, match="column 'a': a number is wanted"):
        features({"a": ["1"]})


def test_what_looks_at_other_rows_is_found(tmp_path: Path) -> None:
    features = plain(tmp_path, "{'x': a / a.max()}")
    columns = features.arrays({"a": [1.0, 2.0, 4.0]})
    with pytest.raises(FeatureError, match="alone it has another 'x'") as caught:
        features.look_alone(columns, features.run(columns))
    assert list(caught.value.rows) == [0]
    declared = plain(tmp_path, "{'x': a / a.max()}", rowwise=False)
    declared.look_alone(columns, declared.run(columns))
    assert declared({"a": [1.0, 4.0]})["x"].tolist() == [0.25, 1.0]


def test_packages_are_those_that_it_requires(tmp_path: Path) -> None:
    there = f"numpy=={version('numpy')}"
    plain(tmp_path, "{'x': a}", requires=[there])
    with pytest.raises(FeatureError, match=r"want numpy==1\.0, and this environment has"):
        plain(tmp_path, "{'x': a}", requires=["numpy==1.0"])
    with pytest.raises(FeatureError, match="does not have it"):
        plain(tmp_path, "{'x': a}", requires=["no-such-thing==1"])


def test_code_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="has no function transform"):
        Features(write(tmp_path, "x = 1\n", PLAIN))
    with pytest.raises(FeatureError, match=r"cannot be loaded: ModuleNotFoundError"):
        Features(write(tmp_path, "import no_such_thing\n", PLAIN))
    with pytest.raises(FeatureError, match="no version of features"):
        Features(tmp_path / "nothing")
    with pytest.raises(FeatureError, match="names no `features:`"):
        load()


def test_it_may_read_files_and_modules_beside_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        "from pathlib import Path\nfrom helping import twice\n"
        "N = float(Path(__file__).with_name('n.txt').read_text())\n"
        "def transform(rows):\n    return {'x': twice(rows['a']) + N}\n",
        {**PLAIN, "files": ["helping.py", "n.txt"]},
    )
    (tmp_path / "helping.py").write_text("def twice(a):\n    return a * 2\n")
    (tmp_path / "n.txt").write_text("0.5")
    assert load(tmp_path)({"a": [1.0]})["x"].tolist() == [2.5]
    assert not (tmp_path / "__pycache__").exists()  # the folder is shared, and read-only


def test_the_declared_rides_are_hard(tmp_path: Path) -> None:
    """What this file proves would be empty if a batch of one were the same anyway."""
    write(tmp_path, HARD, {**RIDES, "rowwise": False})
    features, columns = Features(tmp_path), rides(64)
    whole = features(columns)["x"]
    parts = [
        features({name: values[row : row + 1] for name, values in columns.items()})["x"]
        for row in range(64)
    ]
    assert not same(whole, np.concatenate(parts))
