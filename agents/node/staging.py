"""Making an attempt ready to launch: GPUs, port, environment, interpreter and code."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from agents.node import checkpoints, preflight
from agents.node.blobcache import BlobCache
from agents.node.envcache import EnvCache
from agents.node.environment import ports_needed
from agents.node.ledger import Ledger
from agents.node.ports import free_block
from agents.node.preflight import Condition
from jobs.errors import InvalidInput, NotFound, StorageFull
from jobs.snapshot import Manifest, extract
from jobs.units import format_size
from jobs.wire import LaunchPlan

RESERVE = 256 * 2**20
"""Bytes of disk that stay free, for logs and records of what runs already."""


@dataclass(frozen=True, slots=True)
class Staged:
    """What staging came to."""

    gpus: list[str]  # UUIDs
    port: int | None  # first port of the gang's block, from node rank 0
    python: str | None  # interpreter that leads PATH


@dataclass(frozen=True, slots=True)
class Missing:
    """Blobs that have to be pushed before staging can go on; hex digests."""

    digests: list[str]


@dataclass(frozen=True, slots=True)
class Stager:
    """Stages attempts with the node's caches and ledger."""

    blobs: BlobCache
    envs: EnvCache
    ledger: Ledger
    environ: Mapping[str, str]
    condition: Callable[[], Condition]
    checkpoints: Callable[[str], Path]  # of an attempt's job, by the attempt's key

    async def stage(
        self,
        plan: LaunchPlan,
        folder: Path,
        *,
        lost: Collection[str],
        ports: Collection[int],
        progress: Callable[[str], None],
    ) -> Staged | Missing:
        """Prepare `folder/work` and all else that a launch needs. May be called again at any time.

        Args:
            plan: what to prepare.
            folder: the attempt's.
            lost: GPUs that cannot be used.
            ports: first ports given to other attempts.
            progress: told what is being done, in words.

        Raises QuarterdeckError, in a sentence, when the node cannot run the plan.
        """
        gpus = self.ledger.allot(plan["key"], plan["gpus"], lost)
        manifest = Manifest()
        if plan["snapshot"] is not None:
            found = self.blobs.manifest(plan["snapshot"])
            if found is None:
                return Missing([plan["snapshot"].removeprefix("sha256:")])
            manifest = found
            if missing := self.blobs.missing(manifest.blobs):
                return Missing(missing)
        start = self._start(plan)
        if isinstance(start, Missing):
            return start
        _check_room(folder, manifest.total_bytes + start.total_bytes)
        await preflight.check(plan, gpus, self.condition, progress)
        python = check_interpreter(plan["python"])
        if plan["requirements"] is not None:
            base = python or sys.executable
            built = await self.envs.ensure(plan["requirements"], base, self.environ, progress)
            python = str(built)
        if not (folder / "work").exists():
            progress("unpacking the code")
            # For no files a thread would cost more than the work.
            await asyncio.to_thread(self._unpack, manifest, folder) if manifest.files else (
                self._unpack(manifest, folder)
            )
        if start.files:
            progress("copying the checkpoint")
            kept = self.checkpoints(plan["key"])
            await asyncio.to_thread(checkpoints.begin, kept, start, self.blobs.path)
        port = None
        if plan["node_rank"] == 0:
            port = free_block(ports_needed(plan["procs"]), ports, plan["key"])
        return Staged(gpus, port, python)

    def _start(self, plan: LaunchPlan) -> Manifest | Missing:
        """What the job's checkpoint folder is to begin with: nothing, once it is there."""
        digest = plan.get("checkpoint")
        if digest is None or self.checkpoints(plan["key"]).exists():
            return Manifest()
        found = self.blobs.manifest(digest)
        if found is None:
            return Missing([digest.removeprefix("sha256:")])
        missing = self.blobs.missing(found.blobs)
        return Missing(missing) if missing else found

    def _unpack(self, manifest: Manifest, folder: Path) -> None:
        """Extract beside, then rename: `work` is there only when it is whole."""
        beside = folder / "work.tmp"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700)
        extract(manifest, self.blobs.path, beside)
        beside.rename(folder / "work")


def check_interpreter(path: str | None) -> str | None:
    """The same path, when it is an interpreter that this node can run. Raises NotFound, InvalidInput."""
    if path is None:
        return None
    if not Path(path).is_absolute():
        raise InvalidInput(f"the interpreter '{path}' is not an absolute path")
    if not Path(path).exists():
        raise NotFound(
            f"there is no interpreter {path} on this node",
            "Use one that every node has, or a requirements file.",
        )
    if not os.access(path, os.X_OK) or Path(path).is_dir():
        raise InvalidInput(f"{path} is not a program")
    return path


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + RESERVE:
        raise StorageFull(
            f"the code takes {format_size(needed)} and {format_size(RESERVE)} stay in reserve, but the "
            f"node has {format_size(free)} free at {folder.parent}"
        )
