"""Numbers that JSON has no form for: an infinity is written as "inf" or "-inf", NaN as null.

Everywhere else a metric's value is a float, or None where a script logged NaN. Where JSON is written, `dumps`
and fields of the type `Number` do this; where it is read, `heard` and `loads` take it back.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, TypeAlias

_ODD = {"inf": math.inf, "-inf": -math.inf}
_FEW = b'inf"'


def finite(value: float | None) -> float | None:
    """None for what is no finite number."""
    return value if value is not None and math.isfinite(value) else None


def told(value: float | None) -> float | str | None:
    """A number as JSON has it."""
    if value is None or math.isfinite(value):
        return value
    return None if math.isnan(value) else "inf" if value > 0 else "-inf"


def heard(value: Any) -> Any:
    """The inverse of `told`; whatever else is given as it is."""
    return _ODD.get(value, value) if isinstance(value, str) else value


def dumps(document: Any, **options: Any) -> str:
    """`json.dumps`, for documents with any numbers in them."""
    try:
        return json.dumps(document, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_plain(document), **options)


def _plain(document: Any) -> Any:
    if isinstance(document, float):
        return told(document)
    if isinstance(document, dict):
        return {key: _plain(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_plain(value) for value in document]
    return document


def loads(data: bytes) -> Any:
    """Read what the API says, with the values of metrics as numbers. Texts of people, which may be "inf" too,
    stay: values are known by the fields beside them. Raises ValueError."""
    return json.loads(data, object_hook=_with_numbers if _FEW in data else None)


def _with_numbers(document: dict[str, Any]) -> dict[str, Any]:
    if "value" in document and "step" in document:  # a point, a metric's last value
        document["value"] = heard(document["value"])
    if "number" in document and isinstance(values := document.get("values"), list):  # a trial
        document["values"] = [heard(value) for value in values]
    if "number" in document and "last" in document:
        document["last"] = heard(document["last"])
    if "params" in document and isinstance(metrics := document.get("metrics"), dict):  # a run
        document["metrics"] = {name: heard(value) for name, value in metrics.items()}
    return document


class _InJson:
    """Has pydantic, which this module does not import, write a float as `told`."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        written = core_schema.union_schema(
            [core_schema.float_schema(), core_schema.literal_schema([*_ODD, None])]
        )
        schema = handler(source)
        schema["serialization"] = core_schema.plain_serializer_function_ser_schema(
            told, return_schema=written, when_used="json"
        )
        return schema


Number: TypeAlias = Annotated[float, _InJson]
