"""One job, told in full to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.cli.format import count, elapsed, local_moment, number, size
from console.cli.output import Column, paint, paint_state, say, show
from console.text import neutralise, pad, width
from jobs.base.numbers import finite
from jobs.base.words import counted

if TYPE_CHECKING:
    from jobs.wire.views import AttemptView, FirstFailure, JobDetail, LeftView

_RANKS_SHOWN = 64
"""Above this, only ranks that are out of line are listed: nobody reads 4,000 rows."""


def facts(pairs: list[tuple[str, str]]) -> None:
    """Write names and values in two columns; values that are empty are left out."""
    given = [(name, value) for name, value in pairs if value]
    room = max((width(name) for name, _ in given), default=0)
    for name, value in given:
        say(f"{paint(pad(name, room), 'dim')}  {value}")


def show_job(job: JobDetail, now: float) -> None:
    """Write a job: what it is, how it goes, its attempts and ranks, metrics and artifacts.

    Args:
        now: seconds since the epoch.
    """
    say(f"{paint(job['id'], 'bold')} {neutralise(job['name'])}  {paint_state(job['state'])}")
    command = job["spec"].get("command", "")
    gang = f"{counted(job['ranks'], 'rank')} on {counted(job['nodes'], 'node')}"
    needs = f"{count(job['gpus'])} GPUs, {count(job['cpus'])} CPUs"
    git = job["git"]
    facts(
        [
            ("reason", neutralise(job["reason"])),
            ("user", neutralise(job["user"])),
            ("command", neutralise(command if isinstance(command, str) else " ".join(command))),
            ("asks for", f"{gang}, {needs} in all, priority {job['priority']}"),
            ("submitted", local_moment(job["submitted_at"])),
            ("started", local_moment(job["started_at"]) if job["started_at"] else ""),
            ("ended", local_moment(job["ended_at"]) if job["ended_at"] else ""),
            ("ran", elapsed(job["started_at"], job["ended_at"], now)),
            ("nodes", neutralise(", ".join(job["placed_on"]))),
            ("checkpoint", neutralise(_checkpoint(job))),
            ("stream", _stream(job)),
            ("tags", neutralise(", ".join(f"{k}={v}" for k, v in job["tags"].items()))),
            ("snapshot", neutralise(job["snapshot"] or "")),
            ("image", neutralise(_image(job))),
            (
                "git",
                neutralise(
                    f"{git['commit'][:12]} {git['branch']}{' with changes' if git['dirty'] else ''}"
                )
                if git
                else "",
            ),
        ]
    )
    for attempt in reversed(job["attempts"]):
        say()
        _show_attempt(attempt, now)
    _show_results(job)


def _image(job: JobDetail) -> str:
    """The name that was asked for, and what it meant."""
    name = job["spec"].get("image") or ""
    digest = job.get("image", "")
    return f"{name} ({digest})" if digest and digest not in name else name


def _checkpoint(job: JobDetail) -> str:
    """What was copied last; nothing of a job that is over and has left no copy."""
    told = job.get("checkpoint")  # an older controller knows of none
    if told is None or not (told["copies"] or job["state"] == "RUNNING"):
        return ""
    return told["text"]


def _stream(job: JobDetail) -> str:
    """How far a stream is, of what its script logs."""
    known = {name: finite(metric["value"]) or 0.0 for name, metric in job["metrics"].items()}
    if not job["spec"].get("stream") or "stream/records" not in known:
        return ""
    parts = [
        counted(int(known["stream/records"]), "record"),
        f"{int(known.get('stream/rejected', 0))} bad",
    ]
    if "stream/records_per_s" in known:
        parts.append(f"{known['stream/records_per_s']:.3g} per s")
    for name in ("release", "drift"):
        if found := int(known.get(f"stream/{name}s", 0)):
            parts.append(counted(found, name))
    behind = known.get("stream/behind", 0.0)
    messages = "nats" in job["spec"]["stream"]["source"]
    left = counted(int(behind), "record") if messages else size(int(behind))
    parts.append(f"{left} not read yet" if behind else "all read")
    return ", ".join(parts)


def _show_attempt(attempt: AttemptView, now: float) -> None:
    took = elapsed(attempt["started_at"], attempt["ended_at"], now)
    say(
        f"{paint('attempt', 'dim')} {attempt['id']}  {paint_state(attempt['state'])}  {took}  "
        f"{neutralise(attempt['reason'])}".rstrip()
    )
    if attempt["first_failure"] is not None:
        show_failure(attempt["first_failure"])
    left = attempt.get("left")
    if left and left["files"]:
        say(f"{paint('not kept', 'yellow')}  {not_kept(attempt['id'], left)}")
    ranks = attempt["ranks"]
    if len(ranks) > _RANKS_SHOWN:
        usual = {"RUNNING", "EXITED"}
        odd = [r for r in ranks if r["state"] not in usual or r["exit_code"] or r["signal"]]
        say(f"{len(ranks)} ranks, {len(odd)} of them out of line (`--json` lists all)")
        ranks = odd[:_RANKS_SHOWN]
    if ranks:
        columns = [
            Column("RANK", right=True),
            Column("NODE", flex=True),
            Column("PID", right=True),
            Column("STATE", states=True),
            Column("EXIT", right=True),
            Column("LOG", right=True),
            Column("GPUS", flex=True),
        ]
        show(
            columns,
            [
                [
                    str(rank["rank"]),
                    rank["node"],
                    str(rank["pid"] or "-"),
                    rank["state"],
                    rank["signal"]
                    or ("-" if rank["exit_code"] is None else str(rank["exit_code"])),
                    size(rank["log_bytes"]),
                    ", ".join(rank["gpus"]) or "-",
                ]
                for rank in ranks
            ],
        )


def not_kept(attempt: str, left: LeftView) -> str:
    """What an attempt wrote and no output names: "17 files, 1.2GiB on its node; `qd pull j3.1`"."""
    return f"{counted(left['files'], 'file')}, {size(left['bytes'])}; `qd pull {attempt}`"


def show_failure(failure: FirstFailure) -> None:
    """Write which rank failed first, how, and the last it said."""
    node, reason = neutralise(failure["node"]), neutralise(failure["reason"])
    if failure["rank"] is None:
        say(f"{paint('failed', 'red')} on {node}: {reason}")
    else:
        code = failure["exit_code"]
        how = failure["signal"] or ("no exit code" if code is None else f"exit code {code}")
        say(
            f"{paint('first failure', 'red')} rank {failure['rank']} on {node}: {how}  {reason}".rstrip()
        )
    for line in failure["tail"]:
        say(f"  {paint('|', 'dim')} {neutralise(line)}")


def _show_results(job: JobDetail) -> None:
    if job["metrics"]:
        say()
        show(
            [Column("METRIC", flex=True), Column("VALUE", right=True), Column("STEP", right=True)],
            [
                [name, number(metric["value"]), str(metric["step"])]
                for name, metric in job["metrics"].items()
            ],
        )
    for warning in job.get("warnings", ()):
        say(f"{paint('warning', 'yellow')}  {neutralise(warning)}")
    if job["artifacts"]:
        say()
        show(
            [
                Column("ARTIFACT"),
                Column("SIZE", right=True),
                Column("FILES", right=True),
                Column("PATH"),
                Column("DIGEST", flex=True),
            ],
            [
                [
                    artifact["name"],
                    size(artifact["size"]),
                    str(artifact.get("files", 1)),
                    artifact["path"],
                    artifact["digest"],
                ]
                for artifact in job["artifacts"]
            ],
        )
