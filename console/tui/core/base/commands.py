"""What the console asks the controller to change, and the words for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console.tui.core.draw.format import count, many
from jobs.base.states import TERMINAL
from jobs.wire.views import JobView, NodeView


@dataclass(frozen=True, slots=True)
class Command:
    """One change. `question` says what will happen, and is shown before anything does."""

    verb: str  # "cancel", "drain", ...: a verb of the source
    target: str
    question: str
    effects: tuple[str, ...]
    done: str
    dangerous: bool = False
    others: tuple[str, ...] = ()  # further targets, for what is done to all that is marked
    body: Mapping[str, Any] | None = None  # what is sent with it
    bodies: Mapping[str, Mapping[str, Any]] | None = None  # by target, where that differs

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target, *self.others)

    def body_of(self, target: str) -> Mapping[str, Any] | None:
        """What is sent with one of its targets."""
        return self.body if self.bodies is None else self.bodies[target]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is nothing to confirm."""

    why: str


def cancel(job: JobView) -> Command | Refusal:
    if job["state"] in TERMINAL:
        return Refusal(f"{job['id']} has already ended ({job['state'].lower()}).")
    effects: tuple[str, ...] = ("It waits in the queue and will never start.",)
    if job["placed_on"]:
        where = ", ".join(job["placed_on"][:4]) + (" …" if len(job["placed_on"]) > 4 else "")
        effects = (
            f"Its {many(job['ranks'], 'rank')} on {where} get SIGTERM, "
            "and SIGKILL after the job's grace time.",
            f"{many(job['gpus'], 'GPU')} will be free again."
            if job["gpus"]
            else f"{many(job['cpus'], 'CPU')} will be free again.",
            "Logs, metrics and finished checkpoints stay.",
        )
    effects += _of_sweeps([job])
    return Command(
        "cancel",
        job["id"],
        f"Cancel {job['id']} ({job['name']}) of {job['user']}?",
        effects,
        f"{job['id']} is being cancelled",
        dangerous=True,
    )


def retry(job: JobView) -> Command | Refusal:
    if job["state"] not in TERMINAL:
        return Refusal(f"{job['id']} has not ended yet ({job['state'].lower()}).")
    if job["state"] == "SUCCEEDED":
        return Refusal(f"{job['id']} succeeded; to run it again, submit it again.")
    effects = (
        f"It goes back to the queue as attempt {job['attempt'] + 1}, "
        "from its newest checkpoint if it wrote one.",
        f"It needs {many(job['nodes'], 'node')} with {count(job['gpus'])} GPUs in all.",
    )
    return Command(
        "retry",
        job["id"],
        f"Retry {job['id']} ({job['name']})?",
        effects,
        f"{job['id']} is queued again",
    )


def cancel_all(jobs: Sequence[JobView]) -> Command | Refusal:
    """Cancel those of the marked jobs that live."""
    live = [job for job in jobs if job["state"] not in TERMINAL]
    if not live:
        return Refusal("All marked jobs have already ended.")
    gpus = sum(job["gpus"] for job in live if job["placed_on"])
    ranks = sum(job["ranks"] for job in live if job["placed_on"])
    effects = [f"{_names(live)}."]
    if ranks:
        effects.append(f"SIGTERM for {many(ranks, 'rank')}, and SIGKILL after the grace time.")
    if gpus:
        effects.append(f"{many(gpus, 'GPU')} will be free again.")
    effects.append("Logs, metrics and finished checkpoints stay.")
    effects += _of_sweeps(live)
    return _of_all("cancel", "Cancel", live, len(jobs), effects, "being cancelled", dangerous=True)


def _of_sweeps(jobs: Sequence[JobView]) -> tuple[str, ...]:
    """What cancelling trials does not do."""
    sweeps = sorted({sweep for job in jobs if (sweep := job["tags"].get("sweep"))})
    if not sweeps:
        return ()
    return (f"{', '.join(sweeps[:6])} may start other trials; X on a sweep's screen stops it.",)


def retry_all(jobs: Sequence[JobView]) -> Command | Refusal:
    """Retry those of the marked jobs that failed or were cancelled."""
    ended = [job for job in jobs if job["state"] in TERMINAL and job["state"] != "SUCCEEDED"]
    if not ended:
        return Refusal("None of the marked jobs failed or was cancelled.")
    effects = [f"{_names(ended)}.", "Each goes back to the queue as its next attempt."]
    return _of_all("retry", "Retry", ended, len(jobs), effects, "queued again")


def _of_all(
    verb: str,
    says: str,
    jobs: Sequence[JobView],
    marked: int,
    effects: list[str],
    done: str,
    *,
    dangerous: bool = False,
) -> Command:
    if left := marked - len(jobs):
        effects.append(f"{many(left, 'other')} of the marked stay as they are.")
    ids = [job["id"] for job in jobs]
    what = many(len(ids), "job")
    verbs = "is" if len(ids) == 1 else "are"
    return Command(
        verb,
        ids[0],
        f"{says} {what}?",
        tuple(effects),
        f"{what} {verbs} {done}",
        dangerous=dangerous,
        others=tuple(ids[1:]),
    )


def _names(jobs: Sequence[JobView]) -> str:
    shown = ", ".join(f"{job['id']} {job['name']}" for job in jobs[:6])
    return shown + (f" and {len(jobs) - 6} more" if len(jobs) > 6 else "")


def drain_all(nodes: Sequence[NodeView]) -> Command | Refusal:
    """Drain those of the marked nodes that are in service; when none is, take all back into service."""
    if len(nodes) == 1:
        return drain(nodes[0])
    held = [node for node in nodes if node["state"] in ("DRAINING", "DRAINED", "QUARANTINED")]
    back = len(held) == len(nodes)
    chosen = nodes if back else [node for node in nodes if node not in held]
    names = [node["name"] for node in chosen]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    what = many(len(names), "node")
    if back:
        why = [f"{n['name']} is quarantined: {n['reason']}." for n in chosen if n["reason"]][:4]
        effects = (f"{shown}.", "New ranks may be placed on them at once.", *why)
        question, done = f"Take {what} back into service?", f"{what} are back in service"
        return _nodes("undrain", names, question, effects, done)
    jobs = sorted({job for node in chosen for job in node["jobs"]})
    running = ", ".join(jobs[:6]) + (" …" if len(jobs) > 6 else "")
    effects = (
        f"{shown}.",
        "No new ranks are placed on them.",
        f"What runs there runs on to its end: {running}." if running else "Nothing runs there.",
    )
    if left := len(nodes) - len(chosen):
        effects += (f"{many(left, 'other')} of the marked stay as they are.",)
    return _nodes("drain", names, f"Drain {what}?", effects, f"{what} are draining")


def _nodes(
    verb: str, names: Sequence[str], question: str, effects: tuple[str, ...], done: str
) -> Command:
    return Command(verb, names[0], question, effects, done, dangerous=True, others=tuple(names[1:]))


def drain(node: NodeView) -> Command:
    """Drain, or undrain when the node is drained or quarantined already."""
    name = node["name"]
    if node["state"] == "QUARANTINED":
        return Command(
            "undrain",
            name,
            f"Lift the quarantine of {name}?",
            (f"It is quarantined: {node['reason']}.", "New ranks may be placed on it at once."),
            f"{name} is back in service",
            dangerous=True,
        )
    if node["state"] in ("DRAINING", "DRAINED"):
        return Command(
            "undrain",
            name,
            f"Take {name} back into service?",
            (f"New ranks may be placed on its {many(len(node['gpus']), 'GPU')} at once.",),
            f"{name} is back in service",
        )
    running = ", ".join(node["jobs"][:6]) + (" …" if len(node["jobs"]) > 6 else "")
    effects = ["No new ranks are placed on it."]
    effects.append(
        f"What runs there runs on to its end: {running}." if running else "Nothing runs there."
    )
    return Command(
        "drain", name, f"Drain {name}?", tuple(effects), f"{name} is draining", dangerous=True
    )
