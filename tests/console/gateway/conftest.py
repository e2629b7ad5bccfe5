"""A whole control plane, a gateway to it as a process of its own, and people with keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import psutil
import pytest

from tests.agents.controller.conftest import Plane, make_plane, until
from tests.console.terminals import ROOT, environment
from tests.openssh import need

__all__ = ["make_plane"]

SSH = ["ssh", "-F", "none", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]


@dataclass(frozen=True)
class Said:
    code: int
    out: bytes
    err: bytes


@dataclass
class Served:
    """A gateway, and what its people use.

    Attributes:
        keys: the folder of public keys.
        held: the folder of private ones.
    """

    plane: Plane
    process: asyncio.subprocess.Process
    port: int
    keys: Path
    held: Path

    def add(self, name: str, role: str = "", *, options: str = "") -> Path:
        """Let somebody in; gives their private key."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        path = self.held / name
        path.write_bytes(key.export_private_key())
        path.chmod(0o600)
        before = ",".join(filter(None, [f'role="{role}"' if role else "", options]))
        text = key.export_public_key().decode()
        (self.keys / name).write_text(f"{before} {text}" if before else text)
        return path

    def command(self, who: str, *words: str, options: tuple[str, ...] = ()) -> list[str]:
        """The line of OpenSSH's own client."""
        known = ["-o", f"UserKnownHostsFile={self.held / 'known_hosts'}"]
        known += ["-o", "StrictHostKeyChecking=accept-new", "-i", str(self.held / who)]
        return [*SSH, *known, *options, "-p", str(self.port), "127.0.0.1", *words]

    async def ssh(
        self, who: str, *words: str, stdin: bytes = b"", options: tuple[str, ...] = ()
    ) -> Said:
        """Run a command there."""
        client = await self.client(who, *words, options=options)
        out, err = await client.communicate(stdin)
        assert client.returncode is not None
        return Said(client.returncode, out, err)

    async def client(
        self, who: str, *words: str, options: tuple[str, ...] = ()
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.command(who, *words, options=options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )

    @property
    def journal(self) -> list[dict[str, Any]]:
        path = self.plane.root / "state" / "gateway" / "audit.log"
        return [json.loads(line) for line in path.read_text().splitlines()]

    @property
    def programs(self) -> list[psutil.Process]:
        """What runs for sessions now."""
        forks = psutil.Process(self.process.pid).children()
        return [program for fork in forks for program in fork.children(recursive=True)]


Serve = Callable[..., Any]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: sessions have sockets below it, and the kernel allows 107 bytes for a socket's path."""
    folder = Path(tempfile.mkdtemp(prefix="qdt-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def serve(
    make_plane: Callable[..., Any],
    tmp_path: Path,
) -> AsyncIterator[Serve]:
    need("ssh")
    running: list[asyncio.subprocess.Process] = []

    async def start(*options: str) -> Served:
        plane: Plane = await make_plane()
        keys, held = tmp_path / "config" / "gateway" / "keys", tmp_path / "held"
        for folder in (keys, held):
            folder.mkdir(parents=True, mode=0o700)
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "console.cli.main", "gateway", "--listen", "0", "--json"],
            *options,
            stdout=subprocess.PIPE,
            env=environment(QD_HOME=str(tmp_path)),
            cwd=ROOT,
        )
        running.append(process)
        assert process.stdout is not None
        text = await asyncio.wait_for(process.stdout.readuntil(b"}\n"), 30)
        return Served(plane, process, json.loads(text)["port"], keys, held)

    try:
        yield start
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 10)


@pytest.fixture
async def served(serve: Serve) -> Served:
    made: Served = await serve()
    made.add("mira", "operator")
    made.add("vic")
    return made


async def answers(port: int) -> bool:
    """Whether an SSH server says its version there."""

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as held:
            return held.recv(64)

    return (await asyncio.to_thread(ask)).startswith(b"SSH-2.0-")


__all__ += ["Said", "Serve", "Served", "answers", "os", "serve", "served", "until"]
