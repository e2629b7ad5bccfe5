"""Points that came through the tracker: lines of a rank's metrics file, like those of `quarterdeck.log`.

    {"n": "loss", "s": 3, "v": 0.5, "t": 1764.1, "r": RUN, "q": REQUEST}

`r` is MLflow's run and `q` names the request, so that one which a client repeats after the tracker was
killed adds only the points that are not there. `p` is how much of `n` comes before the client's own name,
`x` a value that JSON does not have. Facts (parameters and tags) for the registry are lines as well:

    {"f": "param", "k": NAME, "x": VALUE}
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.node.tracking import journal
from agents.node.tracking.errors import Refused

MAX_NAMES = 10_000
"""Metrics of one rank, over all of its runs."""
MAX_FACTS = 2000
"""Parameters and tags of a rank that the registry records."""
REMEMBERED = 4096
"""Requests that a client may still repeat."""

_ODD = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, slots=True)
class Point:
    key: str
    value: float
    at: int  # unix time in ms
    step: int

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "value": _odd(self.value) or self.value,
            "timestamp": self.at,
            "step": self.step,
        }


class Points:
    """Of one rank. One thread at a time. Raises OSError when the disk takes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._latest: dict[str, dict[str, Point]] = {}
        self._names = 0
        self._done: OrderedDict[str, int] = OrderedDict()
        self._facts: dict[tuple[str, str], str] = {}
        for item in journal.lines(path, b'{"f":'):
            if isinstance(item, dict) and "f" in item:
                self._facts[str(item["f"]), str(item.get("k"))] = str(item.get("x"))
        for item in journal.lines(path, b',"q":"', b',"r":"'):
            if isinstance(item, dict) and (found := _read(item)) is not None:
                self._note(str(item.get("r")), found)
                self._count(str(item.get("q")), self._done.get(str(item.get("q")), 0) + 1)

    def log(self, run: str, prefix: str, points: Sequence[Point], request: bytes) -> None:
        """Append points, but those that this very request has added before.

        Args:
            prefix: of the names in the metrics file.
            request: its bytes.
        """
        new = {point.key for point in points} - self._latest.get(run, {}).keys()
        if self._names + len(new) > MAX_NAMES:
            raise Refused(
                400,
                "RESOURCE_LIMIT_EXCEEDED",
                f"A rank logs {MAX_NAMES} different metrics at most; '{min(new)[:80]}' is one more",
            )
        name = hashlib.blake2b(request, digest_size=8, key=run.encode()[:64]).hexdigest()
        done = self._done.get(name, 0)
        rest = points[done:]
        if not rest:
            return
        data = "".join(_lines(run, prefix, rest, name)).encode()
        written = 0
        try:
            journal.append(self._path, data, durable=False)
            written = len(rest)
        except journal.Torn as torn:
            written = torn.lines
            raise
        finally:
            for point in rest[:written]:
                self._note(run, point)
            self._count(name, done + written)

    def tell(self, facts: Sequence[tuple[str, str, str | None]]) -> None:
        """Send parameters and tags to the registry that it does not know: (kind, name, value). Those above
        `MAX_FACTS` remain here."""
        new = [fact for fact in facts if self._facts.get(fact[:2]) != str(fact[2])]
        room = MAX_FACTS - self.told
        new = [fact for fact in new if fact[:2] in self._facts or (room := room - 1) >= 0]
        if not new:
            return
        data = b"".join(journal.dumped({"f": kind, "k": name, "x": x}) for kind, name, x in new)
        journal.append(self._path, data, durable=True)
        self._facts.update({(kind, name): str(x) for kind, name, x in new})

    @property
    def told(self) -> int:
        """How many parameters and tags the registry has of this rank."""
        return len(self._facts)

    def latest(self, run: str) -> dict[str, Point]:
        """The last point of each metric, by MLflow's order: step, then time, then value."""
        return self._latest.get(run, {})

    def history(self, run: str, key: str) -> Iterator[Point]:
        """A metric's points, as they were logged."""
        for item in journal.lines(self._path, f'"r":"{run}"'.encode()):
            if isinstance(item, dict) and item.get("r") == run:
                found = _read(item)
                if found is not None and found.key == key:
                    yield found

    def _note(self, run: str, point: Point) -> None:
        of_run = self._latest.setdefault(run, {})
        known = of_run.get(point.key)
        if known is None:
            self._names += 1
        if known is None or point.step > known.step or _order(point) >= _order(known):
            of_run[point.key] = point

    def _count(self, request: str, points: int) -> None:
        self._done[request] = points
        self._done.move_to_end(request)
        while len(self._done) > REMEMBERED:
            self._done.popitem(last=False)


def _order(point: Point) -> tuple[int, int, float]:
    return point.step, point.at, -math.inf if math.isnan(point.value) else point.value


def _odd(value: float) -> str | None:
    """How JSON's users write what it has no number for."""
    if math.isfinite(value):
        return None
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _lines(run: str, prefix: str, points: Sequence[Point], request: str) -> Iterator[str]:
    """By hand, for a batch takes half as long as with `json.dumps`. A key is printable, `run` is hex."""
    names = {point.key: json.dumps(prefix + point.key) for point in points}
    end = f',"r":"{run}","q":"{request}"' + (f',"p":{len(prefix)}' if prefix else "")
    for point in points:
        value, more = float.__repr__(point.value), ""
        if odd := _odd(point.value):
            value, more = "null", f',"x":"{odd}"'
        at = point.at / 1000
        yield f'{{"n":{names[point.key]},"s":{point.step},"v":{value},"t":{at}{end}{more}}}\n'


def _read(item: dict[str, Any]) -> Point | None:
    """What `_lines` wrote; a rank may have written anything."""
    try:
        value = _ODD[item["x"]] if "x" in item else float(item["v"])
        name = str(item["n"])[int(item.get("p", 0)) :]
        return Point(name, value, round(float(item["t"]) * 1000), int(item["s"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
