"""The Ray actor around a node's agent: one per node, restarted by Ray, found by its name.

Errors cross as data, not as exceptions: the two sides may be of different versions, and Ray would wrap
an exception in one of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Any

from jobs.base.errors import InvalidInput, QuarterdeckError

if TYPE_CHECKING:
    from agents.node.agent import NodeAgent

NAMESPACE = "quarterdeck"

CONCURRENCY = 256
"""Calls that one agent serves at a time. They are short, or wait without work (`sync`)."""

METHODS = frozenset(
    {
        "hello",
        "stage",
        "put_blobs",
        "put_chunk",
        "fetch_blob",
        "launch",
        "stop",
        "sync",
        "stacks",
        "open_shell",
        "shell",
        "exchange",
        "list_files",
        "read_file",
        "hash_file",
        "hold",
        "left_folders",
    }
)
"""What may be called: the methods of jobs.wire.messages.AgentClient."""

Reply = dict[str, Any]
"""{"value": ...}, or {"error": ...} as `QuarterdeckError.to_json` writes it."""


def actor_name(node: str, node_id: str) -> str:
    """The name of a node's agent.

    It carries the incarnation of the node: an agent that is bound to a dead incarnation can never run
    again, and must not keep its name from the one that replaces it.
    """
    return f"{name_prefix(node)}{node_id[:12]}"


def name_prefix(node: str) -> str:
    """What the names of all agents of a node begin with."""
    return f"qd-agent:{node}:"


class AgentActor:
    """Answers calls with a NodeAgent, which it starts at the first one."""

    def __init__(self) -> None:
        self._agent: NodeAgent | None = None
        self._starting = asyncio.Lock()

    async def call(self, method: str, args: tuple[Any, ...]) -> Reply:
        """Call a method of the agent."""
        try:
            if method not in METHODS:
                raise InvalidInput(f"an agent has no method '{method}'")
            agent = await self._ready()
            return {"value": await getattr(agent, method)(*args)}
        except QuarterdeckError as error:
            return error.to_json()
        except Exception as error:  # a bug there must be told here, not restart the agent
            logging.getLogger(__name__).exception("%s failed", method)
            return QuarterdeckError(f"the agent failed in {method}: {error!r}").to_json()

    async def _ready(self) -> NodeAgent:
        async with self._starting:
            if self._agent is None:
                from agents.node.agent import NodeAgent
                from agents.node.config import AgentConfig

                # No cluster: the keys of attempts name theirs, and the agent serves whoever asks.
                config = AgentConfig.from_env("", os.environ)
                _log_to(str(config.root))
                agent = NodeAgent(config)
                await agent.start()
                self._agent = agent
            return self._agent


def _log_to(root: str) -> None:
    """Keep the agent's own log with its state: Ray's session folder goes when Ray goes."""
    os.makedirs(root, mode=0o700, exist_ok=True)  # noqa: PTH103
    handler = RotatingFileHandler(f"{root}/agent.log", maxBytes=5_000_000, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
