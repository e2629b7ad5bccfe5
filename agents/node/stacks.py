"""Python stacks of running ranks, read from outside by py-spy: nothing in the rank takes part."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil

from jobs.wire.messages import RankStack

TIMEOUT = 10.0
"""Seconds that py-spy may take for one process; it stops the process meanwhile."""
_AT_ONCE = 4  # py-spy takes most of a core while it looks for symbols


async def stacks_of(pids: dict[int, int | None]) -> list[RankStack]:
    """The stacks of ranks.

    Args:
        pids: rank -> pid, None when it does not run.

    Each rank has an answer, in order; one that cannot be read says why in `error`.
    """
    gate = asyncio.Semaphore(_AT_ONCE)
    return list(await asyncio.gather(*(_stack(rank, pids[rank], gate) for rank in sorted(pids))))


async def _stack(rank: int, pid: int | None, gate: asyncio.Semaphore) -> RankStack:
    if pid is None:
        return RankStack(rank=rank, threads=[], error="it does not run")
    found = await asyncio.to_thread(python_processes, pid)
    if not found:
        return RankStack(rank=rank, threads=[], error=f"process {pid} runs no Python")
    threads: list[dict[str, Any]] = []
    for process in found:
        async with gate:
            try:
                told = await _dump(process)
            except OSError as error:
                return RankStack(rank=rank, threads=[], error=str(error))
        threads += told
    return RankStack(rank=rank, threads=threads, error="")


def python_processes(pid: int) -> list[int]:
    """The process itself when it is Python, else the nearest of its descendants that are."""
    try:
        process = psutil.Process(pid)
        if is_python(process):
            return [pid]
        return [found for child in process.children() for found in python_processes(child.pid)]
    except psutil.Error:
        return []


def is_python(process: psutil.Process) -> bool:
    """Told by its executable's name: `python3.11`, a framework's `ray::` titles notwithstanding."""
    return Path(process.exe()).name.startswith(("python", "pypy"))


def py_spy() -> str | None:
    """The program's path, if this node has it."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


async def _dump(pid: int) -> list[dict[str, Any]]:
    """Threads of one process: `{"name", "frames"}`, frames innermost first. Raises OSError in words."""
    command = py_spy()
    if command is None:
        raise FileNotFoundError("py-spy is not installed on this node")
    process = await asyncio.create_subprocess_exec(
        command,
        *("dump", "--json", "--pid", str(pid)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            output, complaint = await process.communicate()
    except TimeoutError:
        raise OSError(f"py-spy gave no answer for {pid} in {TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        words = complaint.decode(errors="replace").strip().splitlines()
        raise OSError(words[0] if words else f"py-spy ended with exit code {process.returncode}")
    return [
        {
            "name": thread.get("thread_name") or _name(pid, thread.get("os_thread_id")),
            "frames": [
                f"{frame['name']} ({frame.get('short_filename') or frame['filename']}"
                f":{frame['line']})"
                for frame in thread["frames"]
            ],
        }
        for thread in json.loads(output)
    ]


def _name(pid: int, thread: int | None) -> str:
    """Of a thread whose name py-spy did not find (it asks `threading`, which may not be loaded)."""
    return "MainThread" if thread == pid else f"thread {thread}"
