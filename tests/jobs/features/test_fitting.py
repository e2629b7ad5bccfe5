"""Whether features make up a model's inputs, before anything is registered or deployed."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.features.fitting import misfit


def model(**shapes: Any) -> list[dict[str, Any]]:
    return [{"name": name, "dtype": "float32", "shape": shape} for name, shape in shapes.items()]


def declared(**widths: int | None) -> dict[str, Any]:
    return {name: {"type": "float32", "width": width} for name, width in widths.items()}


@pytest.mark.parametrize(
    ("outputs", "inputs"),
    [
        (declared(x=3), model(x=["n", 3])),
        (declared(x=3), model(x=[None, None])),
        (declared(x=3), model(other=["n", 3])),
        (declared(a=None, b=2), model(x=["n", 3])),
        (declared(a=None, b=None), model(a=["n"], b=["n", 1])),
        (declared(a=None, unused=2), model(a=["n"])),
    ],
)
def test_they_fit(outputs: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
    assert misfit(outputs, inputs) == ""


@pytest.mark.parametrize(
    ("outputs", "inputs"),
    [
        (declared(x=4), model(x=["n", 3])),
        (declared(a=None, b=None), model(x=["n"])),
        (declared(a=None), model(a=["n"], b=["n"])),
        (declared(x=12), model(x=["n", 3, 4])),
    ],
)
def test_they_do_not(outputs: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
    assert "is made up by none of their outputs" in misfit(outputs, inputs)
