"""Why a job waits or failed, and where its ranks are: `qd explain`, `qd stacks`."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Iterable
from itertools import islice

from agents.controller.controller import Controller
from agents.controller.core.reconciler import MAINTAINED
from jobs.base.errors import Conflict, QuarterdeckError
from jobs.base.names import job_name
from jobs.base.words import joined
from jobs.placement.explain import explain_waiting
from jobs.store import reading
from jobs.wire import messages as wire
from jobs.wire.views import (
    AttemptView,
    ExplainView,
    FirstFailure,
    JobDetail,
    StackGroup,
    StacksView,
    Unblock,
)

_LACKS = re.compile(r"no such file|not found|does not exist|cannot open|can't open", re.IGNORECASE)
_PATH = re.compile(r"[\w./@+=-]*[\w/]")
_NAMED = 3
"""Files that are named at most."""


async def explain(controller: Controller, number: int) -> ExplainView:
    """A job's state in words: why it waits and what would unblock it, or what failed first.

    Raises:
        NotFound: no such job.
    """
    detail = await controller.job_detail(number)
    events = await controller.db.read(lambda s: reading.events(s, 0, 1000, number, newest=True))
    reasons, unblock = _waiting(controller, number) if detail["state"] == "QUEUED" else ([], [])
    if detail["state"] == "RUNNING" and detail["reason"]:
        unblock = [{"change": "see where its ranks are", "command": f"qd stacks {detail['id']}"}]
    silent = _silent(controller, number)
    if silent:
        reasons = [
            f"no contact with {joined(silent)}: under on_node_loss: wait, what runs there counts as "
            "running until it is known to have gone down"
        ]
        unblock = [
            {"change": f"if {node} certainly has gone down", "command": f"qd confirm-dead {node}"}
            for node in silent
        ]
    failure = next(
        (a["first_failure"] for a in reversed(detail["attempts"]) if a["first_failure"]), None
    )
    said = [f"{a['id']}: {a['reason']}" for a in detail["attempts"] if a["reason"]]
    left = detail["git"].get("at_home") if detail["git"] is not None else None
    if failure is not None and left:
        for path, by in missing_files(failure["tail"], left["paths"]).items():
            said.append(f"its log names {path}, which did not travel: git ignores {by}")
            pattern = shlex.quote(f"{by}**" if by.endswith("/") else by)
            command = f"qd submit --include {pattern} ..."
            unblock.append({"change": f"send {by} with the job", "command": command})
    found: ExplainView = {
        "id": detail["id"],
        "state": detail["state"],
        "summary": _summary(detail, reasons, failure),
        "reasons": reasons or said,
        "unblock": unblock,
        "first_failure": failure,
        "story": [f"{event['at'][11:19]} {event['message']}" for event in events],
    }
    checkpoint = detail["checkpoint"]
    if checkpoint is not None and (checkpoint["copies"] or detail["state"] == "RUNNING"):
        found["checkpoint"] = checkpoint["text"]
    return found


def missing_files(tail: Iterable[str], at_home: Iterable[str]) -> dict[str, str]:
    """Files that a log says are not there and that stayed at home: by the path in the log, what git ignores.

    Args:
        tail: the last lines of the log.
        at_home: files and folders (which end in `/`), relative to the work folder.
    """
    found: dict[str, str] = {}
    left = tuple(at_home)
    for path in (path for line in tail if _LACKS.search(line) for path in _PATH.findall(line)):
        # An absolute path is one of the node, where the work folder has this name.
        inner = path.rpartition("/work/")[2] if path.startswith("/") else path.removeprefix("./")
        for item in left:
            if inner == item or (item.endswith("/") and f"{inner}/".startswith(item)):
                found.setdefault(path, item)
    return dict(islice(found.items(), _NAMED))


def _silent(controller: Controller, number: int) -> list[str]:
    """Lost nodes that the job waits for."""
    lost = [view["name"] for view in controller.node_views() if view["state"] == "LOST"]
    return [
        node for node in lost if job_name(number) in controller.reconciler.losses.waiting_for(node)
    ]


def _waiting(controller: Controller, number: int) -> tuple[list[str], list[Unblock]]:
    reconciler = controller.reconciler
    if not reconciler.settled:
        return ["Ray is not back yet: nothing is placed until what runs is known again"], []
    if reconciler.maintenance.in_force:
        return [MAINTAINED], [{"change": "end the maintenance", "command": "qd maintenance end"}]
    live = reconciler.live.get(number)
    if live is None or not live.waiting:
        return ["its last attempt is being cleared away"], []
    if held := reconciler.doubts.held(live):
        return [held], []
    return explain_waiting(
        number,
        [other.request() for other in reconciler.waiting()],
        controller.cluster.capacities(reconciler.busy()),
        [other.running() for other in reconciler.holding()],
        controller.now(),
    )


def _summary(detail: JobDetail, reasons: list[str], failure: FirstFailure | None) -> str:
    name, state = detail["id"], detail["state"]
    if state == "QUEUED":
        return f"{name} waits: {reasons[0] if reasons else detail['reason']}"
    if state in ("FAILED", "CANCELLED"):
        if failure is not None and failure["rank"] is not None:
            how = (
                f"was killed by {failure['signal']}"
                if failure["signal"]
                else f"exited with {failure['exit_code']}"
            )
            return (
                f"{name} {state.lower()}: rank {failure['rank']} on {failure['node']} {how} first"
            )
        return f"{name} {state.lower()}: {detail['reason']}"
    if state == "SUCCEEDED":
        return f"{name} succeeded on {', '.join(detail['placed_on'])}"
    where = ", ".join(detail["placed_on"])
    tail = f": {detail['reason']}" if detail["reason"] else ""
    return f"{name} is {state.lower()} on {where}{tail}"


async def stacks(controller: Controller, number: int) -> StacksView:
    """The Python stacks of all ranks, equal ones together.

    Raises:
        Conflict: no rank of it runs.
    """
    live = controller.reconciler.live.get(number)
    attempt = live.job.attempt if live is not None else None
    if live is None or attempt is None or live.job.state not in ("RUNNING", "STOPPING"):
        view = await controller.job_view(number)
        raise Conflict(
            f"{job_name(number)} is {view['state'].lower()}: no rank of it runs",
            f"`qd explain {job_name(number)}` says why.",
        )
    key = live.key(controller.cluster_id)
    detail = await controller.job_detail(number)
    answers = await asyncio.gather(
        *(_node_stacks(controller, one.node, key) for one in attempt.allocations)
    )
    ranks: list[wire.RankStack] = []
    failed: dict[str, str] = {}
    for allocation, answer in zip(attempt.allocations, answers, strict=True):
        if isinstance(answer, str):
            failed |= dict.fromkeys(_ranks_on(detail["attempts"][-1], allocation.node), answer)
        else:
            ranks += answer
    failed |= {str(rank["rank"]): rank["error"] for rank in ranks if rank["error"]}
    return {"id": job_name(number), "groups": grouped(ranks), "failed": failed}


async def _node_stacks(controller: Controller, node: str, key: str) -> list[wire.RankStack] | str:
    try:
        _, agent = controller.links.agent(node)
        return await agent.stacks(key)
    except QuarterdeckError as error:
        return error.message


def _ranks_on(attempt: AttemptView, node: str) -> list[str]:
    return [str(rank["rank"]) for rank in attempt["ranks"] if rank["node"] == node]


def grouped(ranks: Iterable[wire.RankStack]) -> list[StackGroup]:
    """Threads with equal stacks together, the largest group first."""
    groups: dict[tuple[str, tuple[str, ...]], set[int]] = {}
    for rank in ranks:
        for thread in rank["threads"]:
            stack = (str(thread["name"]), tuple(thread["frames"]))
            groups.setdefault(stack, set()).add(rank["rank"])
    found: list[StackGroup] = [
        {"ranks": sorted(members), "thread": thread, "frames": list(frames)}
        for (thread, frames), members in groups.items()
    ]
    # The main thread says what a rank does; its helpers come after.
    return sorted(
        found,
        key=lambda group: (group["thread"] != "MainThread", -len(group["ranks"]), group["ranks"]),
    )
