"""The one Ray driver: a process of its own, which the controller talks to over a channel.

Ray ends the process of a driver when it meets a head that is not the one it knew (a failed check in
C++, which nothing can catch), and its calls hang while the head is away. So the driver is a process
that may die or be replaced at any time, and the controller is not it. It holds nothing that matters.

Started as `python -m agents.fabric.driver FD BULK_FD ADDRESS`; calls that carry megabytes come over the
second descriptor, so that none of the others ever waits behind one. Each request is `(number, operation,
args)`, each answer `(number, reply)` with a reply as in `agents.fabric.actor`; the first message from
here is `(0, reply)`, once connected.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from agents.fabric.actor import (
    CONCURRENCY,
    NAMESPACE,
    AgentActor,
    Reply,
    actor_name,
    name_prefix,
)
from agents.fabric.channel import Channel
from agents.fabric.groups import KEPT, Bundles, Groups
from jobs.base.errors import QuarterdeckError, Unreachable

THREADS = 8
"""Blocking calls into Ray at a time, for reservations. One that hangs keeps its thread until the head
answers, so what leases depend on (the table of nodes, agents that must be found) has threads of its own."""
BIRTHS = 4
"""Agents that are looked up or started at a time."""
BULK = 2
"""Calls with megabytes that are handed to Ray at a time; each waits there while its object store is full."""
BULK_BUFFER = 4 << 20

HEAD_TIMEOUT = 20.0
"""Seconds to wait for the head's port: a head takes about 4 s to start."""


class Driver:
    """Answers the controller's requests with Ray. Blocking calls run in threads."""

    def __init__(self) -> None:
        import ray

        self._ray: Any = ray
        self._groups = Groups(ray.util)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="groups")
        self._lister = ThreadPoolExecutor(1, thread_name_prefix="nodes")
        self._births = ThreadPoolExecutor(BIRTHS, thread_name_prefix="agents")
        self._bulk = ThreadPoolExecutor(BULK, thread_name_prefix="bulk")
        self._handles: dict[str, Any] = {}  # node id -> actor
        self._creating: dict[str, asyncio.Lock] = {}
        self._listing: asyncio.Task[Any] | None = None

    async def _blocking(self, call: Callable[..., Any], *args: Any) -> Any:
        return await _in(self._threads, call, *args)

    async def nodes(self) -> Any:
        """The node table as Ray has it. Asked once for all who wait, so that a head that does not
        answer costs one thread and not all."""
        if self._listing is None or self._listing.done():
            self._listing = asyncio.create_task(_in(self._lister, self._ray.nodes))
        return await asyncio.shield(self._listing)

    async def call(
        self, node: str, node_id: str, method: str, args: tuple[Any, ...], *, bulk: bool = False
    ) -> Any:
        """Call a node's agent, which is started when there is none."""
        handle = await self._agent(node, node_id)
        try:
            # Megabytes are copied into Ray's object store, which may have to make room first.
            reference = (
                await _in(self._bulk, handle.call.remote, method, args)
                if bulk
                else handle.call.remote(method, args)
            )
            reply: Reply = await reference
        except self._ray.exceptions.ActorDiedError as error:
            self._handles.pop(node_id, None)  # the next call starts another
            raise Unreachable(f"the agent of {node} has died", str(error).strip()) from error
        if "error" in reply:
            raise _Relayed(reply)
        return reply["value"]

    async def _agent(self, node: str, node_id: str) -> Any:
        async with self._creating.setdefault(node_id, asyncio.Lock()):
            if node_id not in self._handles:
                self._handles[node_id] = await _in(self._births, self._get_or_create, node, node_id)
            return self._handles[node_id]

    def _get_or_create(self, node: str, node_id: str) -> Any:
        ray = self._ray
        strategies = ray.util.scheduling_strategies
        name = actor_name(node, node_id)
        for other in ray.util.list_named_actors():
            if other.startswith(name_prefix(node)) and other != name:
                # Bound to an incarnation of the node that is gone.
                ray.kill(ray.get_actor(other, namespace=NAMESPACE), no_restart=True)
        return (
            ray.remote(AgentActor)
            .options(
                name=name,
                namespace=NAMESPACE,
                get_if_exists=True,  # whoever asks first makes it, all get the same
                lifetime="detached",
                num_cpus=0,
                max_restarts=-1,
                max_concurrency=CONCURRENCY,
                scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node_id, soft=False),
            )
            .remote()
        )

    async def reserve(self, name: str, bundles: Bundles, patience: float) -> bool:
        return bool(await self._blocking(self._groups.reserve, name, bundles, patience))

    async def release(self, name: str) -> None:
        await self._blocking(self._groups.release, name)
        asyncio.get_running_loop().call_later(KEPT, self._threads.submit, self._groups.expire)

    async def reservations(self) -> list[str]:
        return list(await self._blocking(self._groups.names))

    async def answer(self, operation: str, args: tuple[Any, ...], *, bulk: bool = False) -> Reply:
        """One reply; errors become data. `bulk`: it came over the pipe for megabytes."""
        handlers: dict[str, Callable[..., Awaitable[Any]]] = {
            "nodes": self.nodes,
            "call": partial(self.call, bulk=bulk),
            "reserve": self.reserve,
            "release": self.release,
            "reservations": self.reservations,
        }
        try:
            return {"value": await handlers[operation](*args)}
        except _Relayed as relayed:
            return relayed.reply
        except QuarterdeckError as error:
            return error.to_json()
        except Exception as error:  # whatever Ray raises, it means that we did not get through
            return Unreachable(f"Ray: {type(error).__name__}", str(error).strip()).to_json()


async def _in(threads: ThreadPoolExecutor, call: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(threads, call, *args)


class _Relayed(Exception):
    """An error that an agent has told, on its way to the controller as it is."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


def connect(address: str) -> None:
    """Join the cluster at `host:port`. Raises OSError or one of Ray's errors."""
    import ray

    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + HEAD_TIMEOUT
    while True:  # Ray would wait too, but in steps of seconds
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    hook = sys.excepthook
    ray.init(
        address=address,
        namespace=NAMESPACE,
        log_to_driver=False,
        configure_logging=False,
        logging_level="ERROR",
    )
    sys.excepthook = hook  # Ray's reports to the head first, and hangs without one


async def serve(end: socket.socket, bulk_end: socket.socket, joined: Reply) -> None:
    """Say whether it joined, and answer until the controller goes."""
    channel, bulk = await Channel.open(end), await Channel.open(bulk_end, BULK_BUFFER)
    await channel.send((0, joined))
    if "error" in joined:
        return
    driver = Driver()
    pipes = [
        asyncio.create_task(_answers(driver, channel, bulk=False)),
        asyncio.create_task(_answers(driver, bulk, bulk=True)),
    ]
    await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)


async def _answers(driver: Driver, channel: Channel, *, bulk: bool) -> None:
    """Answer what comes over one pipe, until its other end is closed."""
    answering: set[asyncio.Task[None]] = set()

    async def handle(number: int, operation: str, args: tuple[Any, ...]) -> None:
        reply = await driver.answer(operation, args, bulk=bulk)
        with suppress(EOFError):  # the controller has gone, and so shall we
            await channel.send((number, reply))

    while True:
        try:
            number, operation, args = await channel.receive()
        except EOFError:
            return
        task = asyncio.create_task(handle(number, operation, args))
        answering.add(task)
        task.add_done_callback(answering.discard)
        del args  # megabytes, until the next request comes


def main() -> None:
    prctl_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(prctl_set_pdeathsig, signal.SIGKILL)
    descriptor, bulk, address = sys.argv[1:]
    joined: Reply = {"value": None}
    try:
        connect(address)  # in the main thread, where Ray wants to set its signal handlers
    except Exception as error:
        hint = f"{type(error).__name__}: {error}"
        joined = Unreachable(f"cannot join Ray at {address}", hint).to_json()
    ends = [socket.socket(fileno=int(number)) for number in (descriptor, bulk)]
    asyncio.run(serve(ends[0], ends[1], joined))


if __name__ == "__main__":
    try:
        main()
    finally:
        os._exit(
            0
        )  # at once: threads that hang in Ray must not hold it, and there is nothing to save
