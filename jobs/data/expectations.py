"""Expectations of a data set: a first file of them. What one may say is in `jobs.spec.expecting`."""

from __future__ import annotations

from typing import Any

from jobs.base.errors import InvalidInput
from jobs.spec.expecting import ColumnRule, Expectations, TableRule, load_expectations

__all__ = ["ColumnRule", "Expectations", "TableRule", "load_expectations", "propose"]


def propose(profile: dict[str, Any]) -> dict[str, Any]:
    """A first file of expectations from what a profile shows: what holds now, to be edited.

    Raises InvalidInput for a profile without tables.
    """
    if not profile.get("tables"):
        raise InvalidInput("this version has no tables that were looked into")
    tables = {}
    for table in profile["tables"]:
        columns = {}
        for column in table["columns"]:
            rule: dict[str, Any] = {"type": column["type"]}
            if column["missing"] == 0:
                rule["required"] = True
            elif table["rows"]:
                rule["missing"] = min(1.0, round(column["missing"] / table["rows"] * 1.5 + 0.01, 3))
            if column["type"] in ("integer", "number") and column.get("min") is not None:
                rule["min"], rule["max"] = column["min"], column["max"]
            columns[column["name"]] = rule
        tables[table["file"]] = {"min_rows": table["rows"] // 2, "columns": columns}
    return {"tables": tables}
