"""Whether the outputs of features make up the inputs of a model, by what both declare. The same rules are in
`quarterdeck_serve/raw.py`, which runs where this package is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def misfit(outputs: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> str:
    """Why a model cannot stand behind them, in words; empty when it can.

    Args:
        outputs: as declared, by name.
        inputs: of a model's signature; a dimension that is no number is open.
    """
    widths = {name: one.get("width") or 1 for name, one in outputs.items()}
    given = ", ".join(f"{name} of {width}" for name, width in widths.items())
    for one in inputs:
        name, shape = one["name"], one["shape"]
        parts = [name] if name in widths else list(widths) if len(inputs) == 1 else []
        wanted = shape[1] if len(shape) == 2 else 1
        width = sum(widths[part] for part in parts)
        fits = (
            bool(parts)
            and len(shape) in (1, 2)
            and (not isinstance(wanted, int) or wanted == width)
        )
        if not fits or (len(shape) == 1 and len(parts) > 1):
            return (
                f"the model's input {name} of {shape} is made up by none of their outputs: {given}"
            )
    return ""
