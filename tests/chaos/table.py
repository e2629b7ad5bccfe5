"""What is done to a cluster, what is promised then, and what happens: `python -m tests.chaos.table`.

Runs the tests behind each row, and writes the table to docs/survival.md. `--quick` leaves out the rows that
start real clusters, `--missing` runs only those that were never run; a row that is left out keeps what its
last run has found.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "survival.md"
BEGIN, END = "<!-- table -->", "<!-- end -->"
NOT_YET = "not run yet"
HEAD = "| done to it | promised | happened |\n|---|---|---|\n"


@dataclass(frozen=True)
class Row:
    """`tests` is what pytest is given; `real` ones start Ray."""

    done: str
    promised: str
    tests: str
    real: bool = False


_CHAOS, _PLANE = "tests/chaos/", "tests/agents/controller/"
ROWS = (
    Row(
        "controller, driver, agent, Ray, supervisor killed while a gang trains",
        "the gang runs on; every line and point is recorded once",
        _CHAOS + "test_one_host.py::test_training_outlives_it",
        real=True,
    ),
    Row(
        "a rank or a guard killed",
        "its gang ends with it, and the next attempt resumes from the checkpoint",
        _CHAOS + "test_one_host.py -k killed_rank or killed_guard",
        real=True,
    ),
    Row(
        "the node cut off until its lease ends",
        "its ranks stop before any other copy may start",
        _CHAOS + "test_one_host.py -k lease_ends",
        real=True,
    ),
    Row(
        "a quarter of all calls lost, before or after they acted",
        "no double launch, no lost stop, every line once",
        _CHAOS + "test_network.py " + _CHAOS + "test_moments.py",
    ),
    Row(
        "the same by Ray's own failure injection",
        "the same",
        _CHAOS + "test_rpc.py",
        real=True,
    ),
    Row(
        "the registry locked by somebody else for 30 s",
        "leases are renewed, nothing is lost, a submission is one job",
        _CHAOS + "test_locked.py",
        real=True,
    ),
    Row(
        "a submission given up while the registry is locked",
        "it is not carried out afterwards",
        _PLANE + "api/test_presence.py",
    ),
    Row(
        "a full disk under the registry, the logs, the node",
        "nothing is acknowledged that is not kept; training goes on; all arrives later",
        _CHAOS + "test_storage.py",
    ),
    Row(
        "ENOSPC, EIO or EROFS at any single call, or from it on",
        "with a well disk all ends by itself",
        "tests/faults",
    ),
    Row(
        "the state folder full, read-only, gone or damaged, then `qd down --force`",
        "everything is stopped, and what could not be done is said",
        _CHAOS + "test_forced_down.py",
        real=True,
    ),
    Row(
        "yesterday's backup restored, the registry lost or replaced",
        "no attempt is taken for an older one; it is noticed and said",
        _PLANE + "test_restored.py",
    ),
    Row(
        "a backup made, damaged, interrupted, restored",
        "it is whole or refused; nothing is changed before that is known",
        _PLANE + "test_backups.py",
    ),
    Row(
        "the clock set by an hour, also while no controller runs",
        "time limits and run times count the seconds that passed",
        _CHAOS + "test_clock.py",
    ),
    Row(
        "`/tmp` cleaned under Ray, and the agent killed",
        "the node comes back, its ranks run on",
        _CHAOS + "test_cleaned_tmp.py tests/agents/supervisor/test_rayfolder.py",
        real=True,
    ),
    Row(
        "a rank damages the records beside its folder, or removes it",
        "its own attempt alone fails, in words",
        "tests/agents/node/test_damage.py",
    ),
    Row(
        "the ten worst requests that we know of",
        "they are answered or refused, and hold up nobody",
        _PLANE + "api/test_worst_requests.py",
    ),
    Row(
        "a service's control plane killed while requests come",
        "none of them fails",
        _CHAOS + "test_services.py",
        real=True,
    ),
    Row(
        "the controller killed while a sweep runs",
        "each trial is told once, none is lost",
        _CHAOS + "test_sweeps.py",
        real=True,
    ),
)


def run(row: Row) -> str:
    """What came of it, in a few words."""
    files, _, words = row.tests.partition(" -k ")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files.split()]
    command += ["-k", words] if words else []
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    counts = re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout)
    told = ", ".join(f"{number} {what}" for number, what in counts) or "nothing was run"
    kept = done.returncode == 0 and any(what == "passed" for _, what in counts)
    if not kept:
        sys.stderr.write(done.stdout[-4000:])
    day = datetime.now(UTC).date()
    return f"{'as promised' if kept else 'NOT as promised'}: {told}; {seconds:.0f} s, {day}"


def known(page: str) -> dict[str, str]:
    """What the page says of each row."""
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[2] for cells in lines if len(cells) == 3}


def write(found: dict[str, str]) -> None:
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    lines = [f"| {r.done} | {r.promised} | {found.get(r.done, NOT_YET)} |\n" for r in ROWS]
    PAGE.write_text(f"{head}{BEGIN}\n\n{HEAD}{''.join(lines)}\n{END}{tail}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.table", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="no row that starts a real cluster")
    parser.add_argument("--missing", action="store_true", help="rows that were not run yet")
    parser.add_argument("--only", metavar="WORD", help="rows that say this")
    options = parser.parse_args()
    found, wrong = known(PAGE.read_text()), 0
    for row in ROWS:
        if (options.quick and row.real) or (options.only or "") not in row.done + row.promised:
            continue
        if options.missing and found.get(row.done, NOT_YET) != NOT_YET:
            continue
        found[row.done] = run(row)
        wrong += found[row.done].startswith("NOT")
        sys.stdout.write(f"{row.done}: {found[row.done]}\n")
        sys.stdout.flush()
        write(found)
    sys.stdout.write(f"{platform.platform()}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
