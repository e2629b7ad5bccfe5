"""Batch prediction over Parquet, where there is pyarrow (`make test-parquet`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.agents.node.worker.test_batch import Run, expected, rows_of, run
from tests.models import classifier

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
__all__ = ["run"]


def test_row_groups_are_units_and_columns_keep_their_types(tmp_path: Path, run: Run) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(classifier(8))
    rows = rows_of(1000)
    one = pa.table({"id": range(1000), **{f"x_{n}": rows[:, n] for n in range(8)}})
    parquet.write_table(one, tmp_path / "columns.parquet", row_group_size=100)
    run(model, tmp_path / "a", tmp_path / "columns.parquet", QD_BATCH_UNIT="20000")
    parts = sorted((tmp_path / "a").glob("part-*.parquet"))
    assert len(parts) > 2
    found = pa.concat_tables([parquet.read_table(part) for part in parts])
    assert found.column_names == ["id", "label", "score"]
    assert found.column("id").to_pylist() == list(range(1000))
    score = np.array(found.column("score").to_pylist())
    np.testing.assert_allclose(score, expected(model, rows), rtol=1e-5)

    # The same as one column of lists, with rows that are missing or of another length.
    lists = rows.tolist()
    lists[3], lists[5] = None, [1.0]
    parquet.write_table(pa.table({"x": lists, "id": range(1000)}), tmp_path / "lists.parquet")
    told = run(model, tmp_path / "b", tmp_path / "lists.parquet")
    assert "998 rows, 2 bad" in told
    again = parquet.read_table(tmp_path / "b" / "part-000000.parquet")
    assert again.column("id").to_pylist() == [n for n in range(1000) if n not in (3, 5)]
    np.testing.assert_array_equal(np.array(again.column("score").to_pylist())[100:], score[102:])
