"""What differs between two versions of a data set: files, and columns of tables. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.wire.dataviews import DataFile

_MOVED = 0.1
"""Share of the distance from the 5 % to the 95 % quantile by which a quantile has to move to be named."""


def file_changes(old: Sequence[DataFile], new: Sequence[DataFile]) -> dict[str, list[str]]:
    """Paths that were added, removed, changed; sorted."""
    before = {file["path"]: (file["sha256"], file["link"]) for file in old}
    after = {file["path"]: (file["sha256"], file["link"]) for file in new}
    return {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(p for p in before.keys() & after.keys() if before[p] != after[p]),
    }


def profile_changes(
    old: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """What differs in tables that both have: rows, columns, shares of missing values, distributions."""
    before = {found["file"]: found for found in (old or {}).get("tables", [])}
    changes = []
    for found in (new or {}).get("tables", []):
        known = before.get(found["file"])
        if known is None:
            continue
        if known["rows"] != found["rows"]:
            changes.append(_change(found, "", f"{known['rows']:,} rows", f"{found['rows']:,} rows"))
        columns = {view["name"]: view for view in known["columns"]}
        for view in found["columns"]:
            was = columns.pop(view["name"], None)
            if was is None:
                changes.append(_change(found, view["name"], "not there", view["type"]))
            else:
                changes += _column_changes(found, was, view, known["rows"], found["rows"])
        changes += [_change(found, name, was["type"], "not there") for name, was in columns.items()]
    return changes


def _column_changes(
    found: Mapping[str, Any], was: Mapping[str, Any], now: Mapping[str, Any], before: int, rows: int
) -> Iterator[dict[str, Any]]:
    if was["type"] != now["type"]:
        yield _change(found, now["name"], was["type"], now["type"])
        return
    shares = [was["missing"] / before if before else 0.0, now["missing"] / rows if rows else 0.0]
    if abs(shares[0] - shares[1]) >= 0.01:
        old, new = (f"{share:.1%} missing" for share in shares)
        yield _change(found, now["name"], old, new)
    if was.get("quantiles") and now.get("quantiles"):
        spread = was["quantiles"][-1] - was["quantiles"][0]
        moved = max(abs(a - b) for a, b in zip(was["quantiles"], now["quantiles"], strict=True))
        if moved > _MOVED * spread:
            old, new = (f"median {side['quantiles'][2]:.6g}" for side in (was, now))
            yield _change(found, now["name"], old, new)


def _change(found: Mapping[str, Any], column: str, old: str, new: str) -> dict[str, Any]:
    return {"table": found["file"], "column": column, "old": old, "new": new}
