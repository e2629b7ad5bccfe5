"""What a request holds, checked as MLflow's own server does."""

from __future__ import annotations

import functools
import json
import math
import posixpath
import re
from typing import Any

from agents.node.tracking.errors import Refused, invalid
from agents.node.tracking.points import Point

MAX_KEY = 250
MAX_PARAM, MAX_TAG = 6000, 8000
"""Characters of a value."""
MAX_METRICS, MAX_PARAMS, MAX_TAGS, MAX_BATCH = 1000, 100, 100, 1000
"""Of one batch."""

_NAME = re.compile(r"[/\w.\- :]+")
_ALLOWED = (
    "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ),"
    " colons (:) and slashes (/)."
)

Args = dict[str, Any]


def wrong(name: str, value: Any, why: str) -> Refused:
    """Of a field that holds something else, in the words of MLflow's own server."""
    shown = json.dumps(value)[:100] if not isinstance(value, dict | list) else "given"
    return invalid(f"Invalid value {shown} for parameter '{name}' supplied: {why}")


def text(args: Args, name: str, *, limit: int = MAX_TAG, default: str | None = None) -> str:
    """A string of the request; `default` where it is not there. Raises Refused."""
    value = args.get(name)
    if value is None or (value == "" and default is not None):
        if default is None:
            raise invalid(f"Missing value for required parameter '{name}'.")
        return default
    if not isinstance(value, str):
        raise wrong(name, value, "it is no text")
    if len(value) > limit:
        raise invalid(f"'{name}' has {len(value)} characters; allowed: {limit}")
    return value


def whole(args: Args, name: str, default: int, low: int = -(2**63), high: int = 2**63 - 1) -> int:
    """An integer, as a number or as text. Raises Refused."""
    value = args.get(name)
    if type(value) is int and low <= value <= high:
        return value
    if value is None or value == "":
        return default
    try:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        number = int(value if not isinstance(value, str) else value[:30])
    except (ValueError, TypeError, OverflowError):
        number = low - 1
    if not low <= number <= high:
        raise wrong(name, value, f"allowed: {low} to {high}")
    return number


def items(args: Args, name: str, limit: int) -> list[Args]:
    """A list of objects. Raises Refused."""
    found = args.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise wrong(name, found, "it is not a list of objects")
    if len(found) > limit:
        raise invalid(f"A request takes {limit} {name} at most, and this one has {len(found)}")
    return found


def words(args: Args, name: str) -> list[str]:
    """A list of strings, or the one. Raises Refused."""
    found = args.get(name) or []
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise wrong(name, found, "it is not a list of strings")
    return found[:MAX_BATCH]


def key(args: Args, what: str) -> str:
    """The name of a metric, parameter or tag. Raises Refused."""
    return _named(text(args, "key", limit=MAX_KEY), what)


@functools.lru_cache(maxsize=1024)  # a batch has the same few names a thousand times
def _named(name: str, what: str) -> str:
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise invalid(f"Invalid {what} name: {name!r}. {_ALLOWED}")
    if posixpath.normpath(name) != name or name == "." or name.startswith(("..", "/")):
        raise invalid(f"Invalid {what} name: {name!r}. Names may be treated as files in it.")
    return name


def pair(args: Args, what: str) -> tuple[str, str]:
    """Name and value of a parameter or tag. Raises Refused."""
    limit = MAX_PARAM if what == "parameter" else MAX_TAG
    return key(args, what), text(args, "value", limit=limit, default="")


def point(args: Args) -> Point:
    """Raises Refused."""
    name, value = key(args, "metric"), args.get("value")
    try:
        if value is None or isinstance(value, bool):
            raise ValueError
        number = float(value if not isinstance(value, str) else value[:40])
    except (ValueError, TypeError, OverflowError):
        raise invalid(
            f"Got invalid value {str(value)[:100]} for metric '{name}'."
            " Please specify value as a valid double"
        ) from None
    if math.isinf(number) and not isinstance(value, str):
        number = math.copysign(math.inf, number)
    if args.get("timestamp") is None:
        raise invalid(f"Missing value for required parameter 'timestamp' of metric '{name}'.")
    at = whole(args, "timestamp", 0, 0, 10**15)
    return Point(name, number, at, whole(args, "step", 0))
