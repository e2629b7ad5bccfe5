"""From a job and its placement to what each agent is told. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from jobs.base.names import job_name
from jobs.life.lifecycle import Attempt
from jobs.metrics.patterns import expanded
from jobs.spec.job import JobSpec
from jobs.wire import messages as wire
from jobs.wire.dataviews import DataPin


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
    data: Mapping[str, DataPin],
    image: str = "",
    carried: wire.Carried | None = None,
    models: Mapping[str, DataPin] | None = None,
    resume: wire.Resume | None = None,
    run_as: str | None = None,
) -> wire.LaunchPlan:
    """One node's part of a gang.

    Args:
        requirements: the text of the requirements file, which the caller read from the snapshot.
        data: the versions that `data:` names, by what the job calls them.
        image: digest of the image that the job runs with, once a node has resolved its name.
        carried: what the work folder begins with of an earlier attempt's.
        models: those that `models:` names.
        resume: the copy of a checkpoint that it begins with on this node.
        run_as: the account of its ranks; None: that of the node's agent.
    """
    procs = spec.procs
    resources = spec.resources
    plan: wire.LaunchPlan = {
        "key": key,
        "job": job_name(job),
        "attempt": attempt.number,
        "epoch": attempt.epoch,
        "kind": spec.kind,
        "launch": spec.launcher,
        "node_rank": node_rank,
        "nnodes": spec.nodes,
        "procs": procs,
        "first_rank": node_rank * procs,
        "world_size": spec.nodes * procs,
        "argv": spec.argv(),
        "env": _environment(spec),
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
        "outputs": {name: output.path for name, output in spec.outputs.items()},
        "checkpoint": spec.checkpoint.start,
        "metrics": expanded(spec.metrics),
        "user": user,
        "data": dict(data),
    }
    if carried is not None:
        plan["carried"] = carried
    if spec.image is not None:
        plan["image"] = {"ref": spec.image, "digest": image}
        plan["mounts"] = list(spec.mounts)
    if models:
        plan["models"] = dict(models)
    if spec.copying != "off":
        plan["copy"] = {"what": spec.copying, "asked": spec.copying_asked}
    if resume is not None:
        plan["resume"] = resume
    if run_as is not None:
        plan["run_as"] = run_as
    return plan


def _environment(spec: JobSpec) -> dict[str, str | None]:
    if spec.stream is None:
        return dict(spec.env)
    return {**spec.env, "QD_STREAM": json.dumps(spec.stream.settings())}
