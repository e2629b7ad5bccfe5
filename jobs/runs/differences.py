"""What runs differ in: what was asked for, what they read and ran, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """One thing that is not the same for all runs; a value for each, None where it has none."""

    what: str
    values: tuple[Any, ...]


_NOT_ASKED = frozenset({"params", "tags"})


def spec_differences(specs: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Parameters first, then data, then everything else that was asked for, by name."""
    found = _nested("param", [spec.get("params") or {} for spec in specs])
    found += _nested("data", [spec.get("data") or {} for spec in specs])
    flat = [_flat(spec) for spec in specs]
    for name in sorted({name for one in flat for name in one}):
        found += _differing(name, [one.get(name) for one in flat])
    return found + _nested("tag", [spec.get("tags") or {} for spec in specs])


def metric_differences(
    metrics: Sequence[Mapping[str, Mapping[str, Any]]],
) -> tuple[list[Difference], int]:
    """The last values that differ, to the bit, and how many metrics are the same for all."""
    names = sorted({name for one in metrics for name in one})
    found: list[Difference] = []
    for name in names:
        found += _differing(name, [(one.get(name) or {}).get("value") for one in metrics])
    return found, len(names) - len(found)


def file_differences(files: Sequence[Mapping[str, str]]) -> list[Difference]:
    """Paths whose content is not the same in all; the values are what names the content."""
    found: list[Difference] = []
    for path in sorted({path for one in files for path in one}):
        found += _differing(path, [one.get(path) for one in files])
    return found


def _nested(kind: str, values: Sequence[Mapping[str, Any]]) -> list[Difference]:
    names = dict.fromkeys(name for one in values for name in one)
    found: list[Difference] = []
    for name in names:
        found += _differing(f"{kind}.{name}", [one.get(name) for one in values])
    return found


def _flat(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields of fields as `resources.gpu`; what is compared by name elsewhere is left out."""
    found: dict[str, Any] = {}
    for name, value in spec.items():
        if not prefix and name in (*_NOT_ASKED, "data"):
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _differing(what: str, values: Sequence[Any]) -> list[Difference]:
    first = values[0]
    same = all(value == first and type(value) is type(first) for value in values)
    return [] if same else [Difference(what, tuple(values))]
