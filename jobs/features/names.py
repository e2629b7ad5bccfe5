"""How a version of features is written: `rides@3`, or `rides` for the newest. As with data sets."""

from __future__ import annotations

from jobs.base.errors import InvalidInput
from jobs.base.units import show
from jobs.data import names
from jobs.data.names import DataRef

FeatureRef = DataRef


def check_name(text: str) -> str:
    """The same text. Raises InvalidInput unless it can be a name of features."""
    try:
        return names.check_name(text)
    except InvalidInput as error:
        raise InvalidInput(f"{show(text)} cannot be a name of features", error.hint) from None


def parse_ref(text: str) -> FeatureRef:
    """Raises InvalidInput."""
    try:
        return names.parse_ref(text)
    except InvalidInput:
        raise InvalidInput(
            f"{show(text)} is not a version of features",
            "A name, or a name and a version: rides@3.",
        ) from None


def pin_name(version: str) -> str:
    """What a node calls the folder of a version: never the name of a data set's."""
    return f"features/{version}"
