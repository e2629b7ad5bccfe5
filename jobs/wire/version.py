"""Which API two programs speak to each other, compared at every answer."""

from __future__ import annotations

from jobs import __version__
from jobs.base.errors import Unreachable

API = 1
"""Counts up when an older client would misread an answer, or an older controller a request. A new field that
is left out when it has its default, a new route, a new kind of event do neither."""
HEADER = "Quarterdeck-API"
"""In every answer of a controller: the number, a space, its version."""


def stamp() -> str:
    """The header's value."""
    return f"{API} {__version__}"


def compare(theirs: str | None) -> None:
    """Raises Unreachable when the other side speaks another API. One that says nothing is believed."""
    number, _, version = (theirs or "").partition(" ")
    if number.isdecimal() and int(number) != API:
        raise Unreachable(
            f"this is quarterdeck {__version__} with API {API}, and the control plane is {version} with API "
            f"{number}",
            "Install the control plane's version here, or upgrade the older of the two.",
        )


def differ(theirs: str | None) -> str | None:
    """A sentence when the other side is another version."""
    version = (theirs or "").partition(" ")[2]
    if not version or version == __version__:
        return None
    return f"The control plane is quarterdeck {version}, and this is {__version__}."
