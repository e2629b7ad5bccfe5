"""Programs of ours that run beside a rank: a tunnel's far end, and py-spy."""

from __future__ import annotations

import asyncio
import sys

from agents.node.shells import tunnel
from agents.node.stacks import py_spy, python_processes
from jobs.base.errors import Conflict, InvalidInput


async def command(tool: str, options: list[str], pid: int) -> list[str]:
    """The command line of a tool.

    Args:
        tool: "tunnel" (options: the port) or "profile" (options: of `py-spy record`).
        pid: the rank's.

    Raises Conflict when it cannot run here.
    """
    if tool == "tunnel":
        # -S: the environment's .pth files are none of its business, and cost 20 ms.
        return [sys.executable, "-I", "-S", tunnel.__file__, *options]
    if tool == "profile":
        return await _profile(options, pid)
    raise InvalidInput(f"this node knows no tool '{tool}'", "Its Quarterdeck may be an older one.")


async def _profile(options: list[str], pid: int) -> list[str]:
    program = py_spy()
    if program is None:
        raise Conflict(
            "py-spy is not installed on the rank's node",
            "`pip install py-spy` into the environment that Quarterdeck has there.",
        )
    found = await asyncio.to_thread(python_processes, pid)
    if not found:
        raise Conflict(
            f"process {pid} runs no Python", "`qd exec` runs another profiler beside it."
        )
    return [program, "record", *options, "--pid", str(found[0])]
