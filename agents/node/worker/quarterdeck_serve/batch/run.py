"""Doing the units: read, predict, write beside, rename, enter. Every step may be the last."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..app import Runnable
from ..oip import Array
from ..raw import RawModel
from .ledger import Ledger, put
from .mapping import Input, assign, tensors
from .tables import Bad, Table, Writer, read
from .units import Source, Unit

ALL_BAD = 1000
"""So many rows from the start that are all bad are no bad luck."""
_EVERY = 1.0
"""Seconds between two words about the progress."""


@dataclass(frozen=True)
class Options:
    """`rows` that one inference gets. `features`: columns of the model's one input."""

    rows: int = 1024
    features: tuple[str, ...] = ()
    allow_nan: bool = False


class Batch:
    """One rank's part.

    Args:
        say: gets how far the whole run is, about once a second.
        stop: whether to end early; what is done stays done.
    """

    def __init__(
        self,
        model: Runnable,
        ledger: Ledger,
        sources: Sequence[Source],
        units: Sequence[Unit],
        options: Options,
        say: Callable[[dict[str, float]], None],
        stop: Callable[[], bool],
    ) -> None:
        self._model, self._ledger, self._options = model, ledger, options
        self._sources, self._units = sources, units
        self._say, self._stop = say, stop
        self._single = any(spec.shape[:1] == (1,) for spec in model.inputs)
        self._names = [spec.name for spec in model.outputs]
        self._inputs: list[Input] = []
        self._good = self._bad = 0
        self._began = self._said = time.monotonic()
        self._had = sum(entry["rows"] for entry in ledger.done().values())
        self._had_weight = self._weight()

    def work(self) -> bool:
        """Do units until there is none that nobody does; whether it was not stopped."""
        for unit in self._units:
            if self._stop():
                return False
            if self._ledger.claim(unit):
                self._do(unit)
            self.tell()
        return True

    def all_done(self) -> bool:
        return len(self._ledger.done()) >= len(self._units)

    def _do(self, unit: Unit) -> None:
        source = self._sources[unit.source]
        out = self._ledger.out / f"{unit.name}.{source.kind}"
        beside = out.with_name(f"{out.name}.{os.getpid()}.new")
        bad: list[Bad] = []
        rows, writer = 0, None
        for table in read(source, unit, 1 if self._single else self._options.rows, bad):
            if not self._inputs:
                self._inputs = assign(self._model.inputs, table.names(), self._options.features)
            good, outputs = self._predict(table, bad)
            if outputs:
                if writer is None:
                    writer = self._writer(beside, source, table, outputs)
                writer.write(good, outputs)
                rows += len(good.places)
            self._judge(rows, bad)
        self._good, self._bad = self._good + rows, self._bad + len(bad)
        self._put_bad(unit, source, bad)
        if writer is not None and writer.close():
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            put(beside, out)
        self._ledger.enter(unit, rows, len(bad))

    def _judge(self, rows: int, bad: Sequence[Bad]) -> None:
        if self._good + rows == 0 and self._bad + len(bad) >= ALL_BAD:
            raise SystemExit(f"the first {ALL_BAD} rows are all bad: {bad[0].reason}")

    def _put_bad(self, unit: Unit, source: Source, bad: list[Bad]) -> None:
        folder = self._ledger.out / "bad"
        out = folder / f"{unit.name}.jsonl"
        if not bad:
            out.unlink(missing_ok=True)
            return
        folder.mkdir(exist_ok=True)
        beside = out.with_name(f"{out.name}.{os.getpid()}.new")
        with beside.open("w", encoding="utf-8") as file:
            for one in sorted(bad, key=lambda one: one.row):
                told = {"file": source.path, "unit": unit.name, **asdict(one)}
                file.write(json.dumps(told) + "\n")
            file.flush()
            os.fsync(file.fileno())
        put(beside, out)

    def _predict(self, table: Table, bad: list[Bad]) -> tuple[Table, dict[str, Array]]:
        if isinstance(self._model, RawModel):
            good, inputs = self._model.tensors(table, self._inputs, bad)
        else:
            good, inputs = tensors(table, self._inputs, bad, allow_nan=self._options.allow_nan)
        if not inputs:
            return good, {}
        try:
            return good, self._run(inputs, len(good.places))
        except Exception as error:
            if len(good.places) == 1:
                bad.append(Bad(good.places[0], f"the model failed: {error}"[:500], good.record(0)))
                return good.take([]), {}
        # One row may be what it fails on: each by itself.
        kept: list[int] = []
        parts: list[dict[str, Array]] = []
        for index in range(len(good.places)):
            try:
                parts.append(self._run({n: a[index : index + 1] for n, a in inputs.items()}, 1))
                kept.append(index)
            except Exception as error:
                reason = f"the model failed: {error}"[:500]
                bad.append(Bad(good.places[index], reason, good.record(index)))
        if not kept:
            return good.take([]), {}
        joined = {name: np.concatenate([part[name] for part in parts]) for name in self._names}
        return good.take(kept), joined

    def _run(self, inputs: dict[str, Array], rows: int) -> dict[str, Array]:
        found = dict(zip(self._names, self._model.run(inputs, self._names), strict=True))
        for name, array in found.items():
            if array.ndim == 0 or len(array) != rows:
                raise ValueError(
                    f"output '{name}' has the shape {list(array.shape)} for {rows} rows"
                )
        return found

    def _writer(
        self, beside: Path, source: Source, table: Table, outputs: dict[str, Array]
    ) -> Writer:
        used = {column for one in self._inputs for column in one.columns}
        kept = [name for name in table.names() if name not in used and name not in self._names]
        return Writer(beside, source.kind, kept, {n: _width(a) for n, a in outputs.items()})

    # -- progress -----------------------------------------------------------------------------------

    def tell(self, *, now: bool = False) -> None:
        """Say how far all ranks together are."""
        at = time.monotonic()
        if not now and at < self._said + _EVERY:
            return
        self._said = at
        done = self._ledger.done()
        rows = sum(entry["rows"] + entry["bad"] for entry in done.values())
        total, weight = sum(unit.weight for unit in self._units), self._weight()
        took, fresh = max(at - self._began, 1e-3), weight - self._had_weight
        told = {
            "batch_percent": 100.0 * weight / total if total else 100.0,
            "batch_rows": float(rows),
            "batch_bad": float(sum(entry["bad"] for entry in done.values())),
            "batch_rows_per_s": (rows - self._had) / took,
        }
        if fresh:
            told["batch_left_s"] = (total - weight) * took / fresh
        self._say(told)

    def _weight(self) -> int:
        done = self._ledger.done()
        return sum(unit.weight for unit in self._units if unit.name in done)


def _width(array: Array) -> int:
    """See `Writer.outputs`."""
    inner = array.shape[1:]
    if not inner or inner == (1,):
        return 0
    return inner[0] if len(inner) == 1 else -1


def summary(about: dict[str, Any], ledger: Ledger, units: Sequence[Unit]) -> dict[str, Any]:
    """What became of the run."""
    done = ledger.done()
    parts = [done[unit.name] for unit in units]
    return {
        "model": about["model"],
        "rows": sum(part["rows"] for part in parts),
        "bad": sum(part["bad"] for part in parts),
        "parts": len(parts),
    }
