"""Read the task, measure, write the report and the samples."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from .mistakes import Mistake
from .models import load
from .report import Task, measure


def main() -> int:
    task = Task.from_json(json.loads(Path("task.json").read_text()))
    data = json.loads(os.environ.get("QD_DATA") or "{}")
    try:
        model = load(task.format, Path("model") / task.main)
        report, samples = measure(task, model, Path(data["holdout"]), _say)
    except Mistake as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201 - the job's log
        return 2
    text = json.dumps({"metrics": samples}, allow_nan=False, separators=(",", ":"))
    Path("samples.json").write_text(text)
    report["samples"] = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    Path("report.json").write_text(json.dumps(report, allow_nan=False))
    shown = [f"{name} {one['value']}" for name, one in report["metrics"].items()]
    _say(", ".join(shown))
    return 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the job's log


if __name__ == "__main__":
    sys.exit(main())
