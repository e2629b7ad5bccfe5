"""Makes the pictures of the console: real screens of a live cluster on this machine, as SVG.

`make pictures` starts a cluster with four simulated GPUs in a folder of its own, runs a few small jobs,
the example pipeline and the digits sweep, opens the console on it as a person would, presses keys, and
writes what is on the screen. `python docs/pictures/make.py sweep parallel` takes only those.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"
DIGITS = EXAMPLES / "digits"
WORK = HERE / "work"
QD = [sys.executable, "-m", "console.cli.main"]

PICTURES: tuple[tuple[str, tuple[int, int], tuple[str, ...]], ...] = (
    ("cluster", (120, 36), ()),
    ("jobs", (120, 36), ("2",)),
    ("job", (140, 40), ("colon", "j", "1", "enter")),
    ("compare", (120, 36), ("2", "G", "space", "k", "space", "C")),
    ("events", (120, 36), ("8",)),
    ("cluster-80x24", (80, 24), ()),
    ("crosshair", (140, 40), ("colon", "j", "1", "enter", "greater_than_sign", "tab", "tab", *"h" * 63)),
)  # fmt: skip
"""Name, size in cells, and the keys that lead there from the Cluster screen."""

PIPELINES: tuple[tuple[str, tuple[int, int], tuple[str, ...]], ...] = (
    ("pipeline", (120, 36), ("6", "enter", "j", "j", "j")),
    ("pipelines", (120, 24), ("6",)),
    ("alerts", (120, 24), ("7",)),
)
"""The same while a pipeline runs for the second time, with other parameters."""

SWEEPS: tuple[tuple[str, tuple[int, int], tuple[str, ...], int], ...] = (
    ("sweep", (150, 42), ("3", "enter", "j", "j", "j", "j", "j"), 24),
    ("parallel", (130, 36), ("3", "enter", "j", "j", "j", *["tab"] * 3, "b", "z"), 40),
    ("sweep-wide", (200, 50), ("3", "enter"), 40),
)
"""The same of the sweep, and how many of its 40 trials are over."""


def qd(*words: str, folder: Path = WORK, ends_well: bool = True) -> str:
    done = subprocess.run([*QD, *words], cwd=folder, capture_output=True, text=True, timeout=180)
    if done.returncode and ends_well:
        raise SystemExit(f"qd {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def jobs() -> None:
    """Something to look at: a run on two ranks, one on one, one that waits, one that failed."""
    train = ("--", "python", "train.py", "0.08")
    slow = ("--", "python", "train.py", "0.03")
    qd("submit", "--name", "fit-line", "--procs", "2", "--gpus", "2", "--cpus", "0.5", *train)
    qd("submit", "--name", "fit-slowly", "--gpus", "1", "--cpus", "0.2", *slow)
    qd("submit", "--name", "pretrain", "--gpus", "4", *train)
    qd("submit", "--name", "typo", "--cpus", "0.2", "--", "python", "trian.py")


def sweep(home: Path) -> None:
    """The digits sweep on GPUs, four trials at a time, once no other job has them."""
    free()
    folder = home / "digits"
    shutil.copytree(DIGITS, folder)
    file = folder / "sweep.yaml"
    text = file.read_text().replace("{cpu: 1}", "{cpu: 0.4, gpu: 1}")
    file.write_text(text.replace("parallel: 2", "parallel: 4"))
    qd("sweep", str(file), folder=folder)


def free() -> None:
    """Cancel what has not ended."""
    for job in json.loads(qd("jobs", "--json")):
        if job["ended_at"] is None:
            qd("cancel", job["id"])
            qd("wait", job["id"], ends_well=False)


def pipelines(home: Path) -> None:
    """Runs of a pipeline: one that failed, one that succeeded, one that reuses a part of it and runs."""
    free()
    folder = home / "pipeline"
    shutil.copytree(EXAMPLES / "pipeline", folder)
    broken = folder / "broken.yaml"
    broken.write_text("name: nightly\nsteps:\n  fit: {job: {command: python fit.py}}\n")
    qd("pipeline", "run", str(broken), "--wait", folder=folder, ends_well=False)
    file = str(folder / "pipeline.yaml")
    qd("pipeline", "run", file, "--wait", folder=folder)
    qd("schedule", "add", file, "--cron", "30 2 * * 1-5", "--zone", "Europe/Berlin", folder=folder)
    train = folder / "train.py"
    train.write_text(train.read_text() + "\nimport time\ntime.sleep(20)\n")
    qd("pipeline", "run", file, folder=folder)
    time.sleep(8)


def until_over(trials: int) -> None:
    """Wait for so many trials of the sweep."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        view = json.loads(qd("sweeps", "--json"))[0]
        if view["counts"]["total"] - view["counts"]["open"] >= trials:
            return
        time.sleep(1)
    raise SystemExit("the sweep does not end")


async def take(name: str, size: tuple[int, int], keys: tuple[str, ...]) -> None:
    from console.client import Client
    from console.tui.app import QuarterdeckApp
    from console.tui.source import LiveSource

    app = QuarterdeckApp(LiveSource(Client.from_environment()), start="cluster")
    async with app.run_test(size=size) as pilot:
        await asyncio.sleep(2.5)
        for key in keys:
            await pilot.press(key)
            await asyncio.sleep(0.6 if key in ("enter", "C", "2", "3", "6", "7", "8") else 0.05)
        await asyncio.sleep(3.0)
        app.clear_notifications()
        await pilot.pause(0.2)
        picture = app.export_screenshot(title="qd")
    (HERE / f"{name}.svg").write_text(steady(picture))


def steady(svg: str) -> str:
    """Without the number that Textual makes up for each picture, so that equal screens are equal files."""
    made_up: Any = re.search(r"terminal-(\d+)-", svg)
    return svg.replace(f"terminal-{made_up.group(1)}-", "terminal-") if made_up else svg


def wanted(name: str) -> bool:
    return len(sys.argv) < 2 or name in sys.argv[1:]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="qd-pic-") as home:
        os.environ["QD_HOME"] = home
        os.environ.pop("NO_COLOR", None)
        os.environ["COLORTERM"] = "truecolor"
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        qd("up", "--simulate-gpus", "4")
        try:
            if any(wanted(name) for name, *_ in PICTURES):
                jobs()
                time.sleep(35)
            for name, size, keys in PICTURES:
                if not wanted(name):
                    continue
                if name == "crosshair":
                    qd("wait", "j1")  # so that the same keys always lead to the same step
                asyncio.run(take(name, size, keys))
                sys.stdout.write(f"docs/pictures/{name}.svg\n")
            if any(wanted(name) for name, *_ in PIPELINES):
                pipelines(Path(home))
            for name, size, keys in PIPELINES:
                if wanted(name):
                    asyncio.run(take(name, size, keys))
                    sys.stdout.write(f"docs/pictures/{name}.svg\n")
            if any(wanted(name) for name, *_ in SWEEPS):
                sweep(Path(home))
            for name, size, keys, trials in SWEEPS:
                if wanted(name):
                    until_over(trials)
                    asyncio.run(take(name, size, keys))
                    sys.stdout.write(f"docs/pictures/{name}.svg\n")
        finally:
            qd("down", "--force")


if __name__ == "__main__":
    main()
