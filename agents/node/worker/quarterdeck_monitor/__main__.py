"""Read the task, compare, write the report."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from .judging import Task, judge
from .rows import Rows, of_log, of_table


def main() -> int:
    asked = json.loads(Path("task.json").read_text())
    names = asked["features"]
    task = Task(asked["least"], asked["level"], asked["limit"])
    window = _log("window.jsonl", names)
    data = json.loads(os.environ.get("QD_DATA") or "{}")
    try:
        if "reference" in data:
            reference = of_table(Path(data["reference"]))
        else:
            reference = _log("reference.jsonl", names)
    except ValueError as error:
        print(error, flush=True)  # noqa: T201 - the job's log
        return 1
    report = judge(task, reference, window)
    Path("report.json").write_text(json.dumps(report, allow_nan=False))
    drifted = sum(feature["drift"] for feature in report["features"])
    print(f"{report['status']}: {drifted} features of {len(report['features'])}", flush=True)  # noqa: T201
    return 0


def _log(name: str, names: list[str]) -> Rows:
    path = Path(name)
    if not path.exists():
        return Rows()
    with path.open() as lines:
        return of_log(lines, names)


if __name__ == "__main__":
    sys.exit(main())
