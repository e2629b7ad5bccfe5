"""Programs beside a rank: `qd exec`, `attach`, `forward`, `profile`. For whose job it is, and for admins."""

from __future__ import annotations

import secrets

from agents.controller.controller import Controller
from jobs.access.roles import Role
from jobs.base.errors import Conflict, InvalidInput, NotAllowed, NotFound
from jobs.base.names import RunRef, job_name
from jobs.store import audit
from jobs.store.writing import Caller
from jobs.wire.messages import AgentClient, ShellReply, ShellRequest
from jobs.wire.views import ShellView

MAX_WORDS = 64 << 10
"""Characters of a command line."""


async def begin(
    controller: Controller,
    who: Caller,
    ref: RunRef,
    rank: int,
    *,
    argv: list[str],
    env: dict[str, str],
    terminal: bool,
    rows: int,
    columns: int,
    attach: bool,
) -> ShellView:
    """Run a program beside a rank. With `attach` it stays when nobody reads, and the next one who
    attaches to that rank has the same.

    Raises NotAllowed for other people's jobs, Conflict when the rank does not run.
    """
    if not argv or sum(map(len, argv)) > MAX_WORDS or any("\0" in word for word in argv):
        raise InvalidInput("argv: a command line, of 64 KiB at most")
    request: ShellRequest = {
        "name": f"{who.user}-{rank}" if attach else secrets.token_hex(8),
        "argv": argv,
        "env": env,
        "terminal": terminal,
        "rows": rows,
        "columns": columns,
        "keep": attach,
    }
    return await _open(controller, who, ref, rank, "attach" if attach else "exec", request)


async def forward(
    controller: Controller, who: Caller, ref: RunRef, rank: int, port: int
) -> ShellView:
    """Begin a tunnel (`jobs/wire/tunnel.py`) to a port that the job listens on beside a rank.

    Raises as `begin`.
    """
    return await _open(controller, who, ref, rank, "forward", _tool("tunnel", [str(port)]))


async def profile(
    controller: Controller, who: Caller, ref: RunRef, rank: int, options: list[str]
) -> ShellView:
    """Begin `py-spy record` of a rank, as the rank's user; its output is what it found, as folded stacks.

    Raises as `begin`.
    """
    words = ["--format", "raw", "--output", "/dev/stdout", *options]
    return await _open(controller, who, ref, rank, "profile", _tool("profile", words))


def _tool(name: str, options: list[str]) -> ShellRequest:
    return {
        "name": secrets.token_hex(8),
        "argv": options,
        "env": {},
        "terminal": False,
        "rows": 24,
        "columns": 80,
        "keep": False,
        "tool": name,
    }


async def _open(
    controller: Controller, who: Caller, ref: RunRef, rank: int, action: str, request: ShellRequest
) -> ShellView:
    agent, key, owner = await _beside(controller, ref, rank)
    _check_owner(who, owner, ref)
    now = controller.now()
    await controller.db.write(
        lambda session: audit.append(
            session,
            at=now,
            user=who.user,
            uid=who.uid,
            action=f"job.{action}",
            target=f"{job_name(ref.job)}/r{rank}",
            data={"argv": [word[:1000] for word in request["argv"][:100]]},
        )
    )
    new = await agent.open_shell(key, rank, request)
    return {"id": request["name"], "rank": rank, "new": new}


async def talk(
    controller: Controller,
    who: Caller,
    ref: RunRef,
    rank: int,
    name: str,
    *,
    kind: str,
    number: int = 0,
    data: bytes = b"",
    wait: float = 0.0,
) -> ShellReply:
    """Read from such a program, write to it, end its input, tell its size, or send a signal."""
    agent, key, owner = await _beside(controller, ref, rank)
    _check_owner(who, owner, ref)
    return await agent.shell(key, name, kind, number, data, wait)


async def _beside(controller: Controller, ref: RunRef, rank: int) -> tuple[AgentClient, str, str]:
    """The agent of a rank's node, the attempt's key, and whose job it is."""
    live = controller.reconciler.live.get(ref.job)
    attempt = live.job.attempt if live is not None else None
    if live is None or attempt is None or live.job.state not in ("RUNNING", "STOPPING"):
        view = await controller.job_view(ref.job)
        raise Conflict(
            f"{job_name(ref.job)} is {view['state'].lower()}: no rank of it runs",
            f"`qd explain {job_name(ref.job)}` says why.",
        )
    view = live.view
    if not 0 <= rank < view["ranks"]:
        raise NotFound(
            f"{job_name(ref.job)} has no rank {rank}", f"Its ranks are 0 to {view['ranks'] - 1}."
        )
    each = max(1, view["ranks"] // len(attempt.allocations))
    _, agent = controller.links.agent(attempt.allocations[rank // each].node)
    return agent, live.key(controller.cluster_id), view["user"]


def _check_owner(who: Caller, owner: str, ref: RunRef) -> None:
    if who.user != owner and who.role < Role.ADMIN:
        raise NotAllowed(
            f"{job_name(ref.job)} is {owner}'s: what runs beside it sees all that it sees",
            "Its owner and admins may.",
        )
