"""A job file that is being written: the template it starts from, and what the check said. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from console.tui.core.draw.lines import BLANK, Line, line, wrap

TEMPLATE = """\
# A job: one command, run as one rank or many. Save and leave the editor; it is checked at once.
name: my-job
command: python train.py
workdir: {folder}
nodes: 1
procs_per_node: 1
resources: {{gpu: 0, cpu: 1}}      # per node
# env: {{OMP_NUM_THREADS: "1"}}
# max_restarts: 2
# timeout: 2h
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `qd submit --dry-run` said of the file."""

    ok: bool
    message: str
    hint: str = ""


def verdict(code: int, out: str, err: str) -> Verdict:
    """From the exit code and the two outputs of `qd submit --json`."""
    if code == 0:
        return Verdict(True, "This job can be submitted.", "")
    for text in (err, out):
        for part in reversed(text.strip().splitlines()):
            try:
                error = json.loads(part)["error"]
                return Verdict(False, str(error["message"]), str(error.get("hint", "")))
            except (ValueError, KeyError, TypeError):
                continue
    return Verdict(False, err.strip() or f"qd submit ended with exit code {code}")


def submitted(out: str) -> str | None:
    """The job's id from what `qd submit --json` printed."""
    try:
        return str(json.loads(out)["id"])
    except (ValueError, KeyError, TypeError):
        return None


def verdict_lines(said: Verdict | None, width: int) -> list[Line]:
    """The verdict, and the keys that go on from there."""
    if said is None:
        return [line(("checking", "dim"))]
    out = [
        line((text, "ok" if said.ok else "error"))
        for part in said.message.splitlines() or [""]
        for text in wrap(part, width) or [""]
    ]
    out += [line((text, "dim")) for part in said.hint.splitlines() for text in wrap(part, width)]
    out.append(BLANK)
    yes = [("y", "key"), (" submit it    ", "")] if said.ok else []
    out.append(line(*yes, ("e", "key"), " edit    ", ("esc", "key"), " leave it"))
    return out
