"""From a job and its placement to what each agent is told. Pure."""

from __future__ import annotations

from jobs import wire
from jobs.lifecycle import Attempt
from jobs.names import job_name
from jobs.spec import JobSpec


def launch_plan(
    *,
    key: str,
    job: int,
    attempt: Attempt,
    node_rank: int,
    spec: JobSpec,
    snapshot: str | None,
    requirements: str | None,
    user: str,
) -> wire.LaunchPlan:
    """One node's part of a gang.

    Args:
        requirements: the text of the requirements file, which the caller read from the snapshot.
    """
    procs = spec.procs_per_node
    resources = spec.resources
    return {
        "key": key,
        "job": job_name(job),
        "attempt": attempt.number,
        "epoch": attempt.epoch,
        "kind": spec.kind,
        "node_rank": node_rank,
        "nnodes": spec.nodes,
        "procs": procs,
        "first_rank": node_rank * procs,
        "world_size": spec.nodes * procs,
        "argv": spec.argv(),
        "env": dict(spec.env),
        "python": spec.python,
        "requirements": requirements,
        "snapshot": snapshot,
        "gpus": resources.gpu,
        "cpus": resources.cpu,
        "memory": resources.memory,
        "params": dict(spec.params),
        "seed": spec.seed,
        "grace": spec.grace,
        "notice": spec.notice,
        "lease": spec.lease,
        "outputs": dict(spec.outputs),
        "checkpoint": spec.checkpoint.start,
        "user": user,
    }
