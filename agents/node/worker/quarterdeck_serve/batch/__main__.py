"""One rank of a batch prediction. The first one makes the plan, and sums up when all have done their part."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import quarterdeck

from ..app import Runnable
from ..features.transform import content
from ..model import Model
from ..raw import RawModel
from .ledger import Ledger, digest
from .run import Batch, Options, summary
from .units import UNIT, look_at

_POLL = 0.2


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="quarterdeck_serve.batch", description=__doc__)
    parser.add_argument("model", type=Path, help="an ONNX file")
    parser.add_argument("files", nargs="+", help="CSV, JSON lines or Parquet; folders of them")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--name", default="model")
    parser.add_argument("--rows", type=int, default=Options.rows, help="of one inference")
    parser.add_argument("--features", default="", help="columns of the input, with commas between")
    parser.add_argument("--threads", type=int, default=1, help="that one inference may use")
    parser.add_argument("--transform", type=Path, help="a version of features, before the model")
    parser.add_argument("--allow-nan", action="store_true", help="pass on NaN and infinities")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    args = arguments(words)
    features = tuple(name for name in args.features.split(",") if name)
    options = Options(args.rows, features, args.allow_nan)
    sources = look_at(args.files)
    about = {
        "model": args.name,
        "sha256": digest(args.model),
        "rows": options.rows,
        "features": list(features),
        "allow_nan": options.allow_nan,
        "threads": args.threads,
    }
    if args.transform is not None:
        about["transform"] = content(args.transform)
    first = quarterdeck.rank == 0
    ledger = Ledger(args.out, os.environ.get("QD_RUN", f"pid{os.getpid()}"))
    size = int(os.environ.get("QD_BATCH_UNIT", str(UNIT)))
    units = ledger.open(about, sources, size, first=first)
    model: Runnable = Model(args.model, args.threads)
    if args.transform is not None:
        model = RawModel(model, args.transform)

    def say(told: dict[str, float]) -> None:
        if first:
            quarterdeck.log(told)

    batch = Batch(model, ledger, sources, units, options, say, quarterdeck.should_stop)
    if not batch.work():
        print("stopped; the same command goes on from here", flush=True)  # noqa: T201 - its log
        return 1
    if not first:
        return 0
    while not batch.all_done():  # by other ranks; if one fails, all are started again
        if quarterdeck.should_stop():
            return 1
        time.sleep(_POLL)
        batch.tell()
    batch.tell(now=True)
    told = summary(about, ledger, units)
    ledger.close(told)
    print(f"{told['rows']} rows, {told['bad']} bad, in {args.out}", flush=True)  # noqa: T201
    if told["bad"] and not told["rows"]:
        print("not one row was good; bad/ says why", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
