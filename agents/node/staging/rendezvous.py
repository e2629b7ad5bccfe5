"""Whether the nodes of a gang can reach one another, before their ranks try to.

While a gang is staged, the agent of node rank 0 listens on the port at which the ranks will meet; the
other agents connect to it. A firewall or a wrong route is then told in a sentence that names both
nodes, instead of by ranks that wait for half an hour. Listening also keeps the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from agents.node.attempts import Attempt
from agents.node.staging.preflight import Unfit
from agents.node.staging.stagings import reply
from jobs.wire.messages import LaunchPlan, Meeting, StageReply

PATIENCE = 10.0
"""Seconds for a connection: a lost packet costs one, then two, then four."""
AGAIN = 0.3
_LINGER = 5.0
"""Seconds for a guest to hang up."""


class Meetings:
    """The ports that this node's agent holds for gangs that are staged, by the attempt's key."""

    def __init__(self) -> None:
        self._servers: dict[str, asyncio.Server] = {}

    async def attend(self, attempt: Attempt, plan: LaunchPlan) -> StageReply:
        """For a staged attempt: hold the place where its gang meets, or see whether it can be reached
        when the plan says where it is."""
        try:
            if plan["nnodes"] > 1 and attempt.staged and attempt.staged.port:
                async with attempt.lock:  # from a launch on the place is the ranks'
                    if attempt.standing.state == "staged":
                        await self.host(attempt.key, attempt.staged.port)
            elif "meet" in plan:
                await reach(plan["meet"], attempt.key)
        except Unfit as error:
            return reply(attempt, "failed", error.message, blame="node")
        return reply(attempt, "ready")

    async def resume(self, attempt: Attempt) -> None:
        """Hold a place that an earlier agent held, if it can still be had."""
        if attempt.standing.state == "staged" and attempt.plan and attempt.staged:
            await self.attend(attempt, attempt.plan)

    async def host(self, key: str, port: int) -> None:
        """Listen for the other nodes of an attempt; once, however often this is called.

        Raises Unfit when the port is taken.
        """
        if key in self._servers:
            return

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(_LINGER):
                    writer.write(key.encode() + b"\n")
                    # The guest hangs up first: whoever does keeps the port busy for a minute.
                    await reader.read()
            except (TimeoutError, OSError):
                pass
            finally:
                writer.close()

        try:
            # On all addresses, as the ranks will: which of them is the gang's is not ours to know.
            self._servers[key] = await asyncio.start_server(greet, "0.0.0.0", port)  # noqa: S104
        except OSError as error:
            raise Unfit(f"port {port} was taken meanwhile: {error.strerror}") from error

    def end(self, key: str) -> None:
        """Leave the port to the ranks; nothing is fine."""
        server = self._servers.pop(key, None)
        if server is not None:
            server.close()

    def close(self) -> None:
        for key in list(self._servers):
            self.end(key)


async def reach(meeting: Meeting, key: str, *, patience: float = PATIENCE) -> None:
    """See whether the place where a gang meets can be reached from here. Raises Unfit.

    Args:
        key: the attempt's, with which its agent there answers.
        patience: seconds; also the agent there may just be restarting.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            async with asyncio.timeout(max(AGAIN, deadline - time.monotonic())):
                found = await _answer(meeting["address"], meeting["port"])
            if found == key:
                return
            why = "something else answers there"
        except TimeoutError:
            why = "no answer"
        except OSError as error:
            # Names that do not resolve have numbers of their own; several addresses, several errors.
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        if time.monotonic() + AGAIN >= deadline:
            place = f"{meeting['node']} at {meeting['address']}:{meeting['port']}"
            raise Unfit(
                f"cannot reach {place}, where the ranks are to meet: {why}",
                "See whether a firewall or the route between the two nodes is in the way.",
            )
        await asyncio.sleep(AGAIN)


async def _answer(address: str, port: int) -> str:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        return (await reader.readline()).decode("utf-8", "replace").strip()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
