"""Making an attempt ready to launch: GPUs, port, environment, interpreter and code."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from agents.node import accounts
from agents.node.staging import carried, checkpoints, containers, images, preflight
from agents.node.staging.blobcache import BlobCache
from agents.node.staging.datasets import DataCache
from agents.node.staging.envcache import EnvCache
from agents.node.staging.environment import ports_needed
from agents.node.staging.ledger import Ledger
from agents.node.staging.ports import free_block
from agents.node.staging.preflight import Condition
from agents.node.staging.room import check_room
from jobs.base import interpreters
from jobs.base.disk import storage_full
from jobs.base.errors import Conflict, InvalidInput
from jobs.snapshots.manifest import Manifest, extract
from jobs.wire.messages import Carried, LaunchPlan


@dataclass(frozen=True, slots=True)
class Staged:
    """What staging came to."""

    gpus: list[str]  # UUIDs
    port: int | None  # first port of the gang's block, from node rank 0
    python: str | None  # interpreter that leads PATH
    image: images.Image | None = None  # what the ranks run in


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
    written: Callable[[str], tuple[Path, int | None] | None]  # an attempt's work folder, since when
    checkpoints: Callable[[str], Path]  # of an attempt's job, by the attempt's key
    data: DataCache

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
        account = await asyncio.to_thread(self._account, plan, folder)
        gpus = self.ledger.allot(plan["key"], plan["gpus"], lost)
        manifest = Manifest()
        if plan["snapshot"] is not None:
            found = self.blobs.manifest(plan["snapshot"])
            if found is None:
                return Missing([plan["snapshot"].removeprefix("sha256:")])
            manifest = found
            if missing := self.blobs.missing(manifest.blobs):
                return Missing(missing)
        over = plan.get("carried")
        brought = Manifest()
        if over is not None and over["digest"]:
            whole = self.blobs.manifest(over["digest"])
            if whole is None:
                return Missing([over["digest"].removeprefix("sha256:")])
            brought = whole
            if missing := self.blobs.missing(brought.blobs):
                return Missing(missing)
        start = await self._start(plan)
        if isinstance(start, Missing):
            return start
        pins = [*(plan.get("data") or {}).values(), *(plan.get("models") or {}).values()]
        for pin in pins:
            if missing := await asyncio.to_thread(self.data.missing, pin):
                return Missing(missing)
        carried_bytes = over["size"] if over is not None else 0
        total = manifest.total_bytes + start.total_bytes + carried_bytes
        check_room(folder.parent, total, "the code")
        await preflight.check(plan, gpus, self.condition, progress)
        image = None
        if (wanted := plan.get("image")) is not None:
            containers.check(plan, gpus)
            environ = containers.podman_environment(os.environ)
            image = await images.ensure(wanted["ref"], wanted["digest"], environ, progress)
        python = check_interpreter(plan["python"])
        if plan["requirements"] is not None:
            base = python or sys.executable
            built = await self.envs.ensure(
                plan["requirements"], base, self.environ, progress, account
            )
            python = str(built)
        if not (folder / "work").exists():
            progress("unpacking the code")
            # For no files a thread would cost more than the work.
            if manifest.files or manifest.folders or over is not None:
                await asyncio.to_thread(self._unpack, manifest, folder, account, over, brought)
            else:
                self._unpack(manifest, folder, account)
        for pin in pins:
            progress(f"laying out {pin['version']}")
            await asyncio.to_thread(self.data.ensure, pin)
        if start.files:
            progress("copying the checkpoint")
            kept = self.checkpoints(plan["key"])
            copy = plan.get("resume")
            await (
                asyncio.to_thread(checkpoints.begin, kept, start, self.blobs.path, account)
                if copy is None
                else asyncio.to_thread(
                    checkpoints.resume, kept, start, copy["at"], self.blobs.path, account
                )
            )
        port = None
        if plan["node_rank"] == 0:
            port = free_block(ports_needed(plan["procs"]), ports, plan["key"])
        return Staged(gpus, port, _named_python(python, folder), image)

    def _account(self, plan: LaunchPlan, folder: Path) -> accounts.Account | None:
        """Whom the ranks run as, with what is theirs of the attempt's folder; None: the agent's own account.
        Blocking. Raises NoAccount, InvalidInput."""
        name = plan.get("run_as")
        account = None if name is None else accounts.find(name)
        if account is None:
            return None
        if plan["kind"] == "ray" or "image" in plan:
            what = "a container" if "image" in plan else "a Ray driver"
            raise InvalidInput(f"{what} cannot run as {account.name}, only as this node's account")
        kept = self.checkpoints(plan["key"])
        kept.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        accounts.hand_over(folder, account, kept.parent)
        if kept.exists() and kept.lstat().st_uid != account.uid:
            raise accounts.NoAccount(f"{kept} is not {account.name}'s: the job ran as another user")
        return account

    async def _start(self, plan: LaunchPlan) -> Manifest | Missing:
        """What the job's checkpoint folder is to begin with: nothing, once it is there, or when it is as
        new as the copy that the head has."""
        digest, copy = plan.get("checkpoint"), plan.get("resume")
        folder = self.checkpoints(plan["key"])
        if copy is not None:
            whole = self.blobs.manifest(copy["digest"])
            if whole is None:
                return Missing([copy["digest"].removeprefix("sha256:")])
            wanted = await asyncio.to_thread(checkpoints.lacking, folder, whole, copy)
            absent = self.blobs.missing(wanted.blobs)
            return Missing(absent) if absent else wanted
        if digest is None or folder.exists():
            return Manifest()
        found = self.blobs.manifest(digest)
        if found is None:
            return Missing([digest.removeprefix("sha256:")])
        missing = self.blobs.missing(found.blobs)
        return Missing(missing) if missing else found

    def _unpack(
        self,
        manifest: Manifest,
        folder: Path,
        account: accounts.Account | None,
        over: Carried | None = None,
        brought: Manifest | None = None,
    ) -> None:
        """Extract beside, then rename: `work` is there only when it is whole.

        Args:
            account: whose the folder becomes.
            over: what an earlier attempt wrote. brought: its manifest, if it came from another node.
        """
        beside = folder / "work.tmp"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700)
        extract(manifest, self.blobs.path, beside)
        accounts.give(beside, account)
        if over is not None:
            carried.mark(folder)
            try:
                self._lay_over(over, brought or Manifest(), folder, beside, account)
            except OSError as error:
                raise storage_full(f"cannot write to {beside}", error) from error
        beside.rename(folder / "work")

    def _lay_over(
        self,
        over: Carried,
        brought: Manifest,
        folder: Path,
        beside: Path,
        account: accounts.Account | None,
    ) -> None:
        if not over["digest"]:
            found = self.written(over["key"])
            if found is None:
                raise Conflict(f"this node has the work folder of {over['key']} no more")
            with accounts.acting_for(beside):
                carried.lay_over(*found, beside)
            return
        unpacked = folder / "carried.tmp"
        shutil.rmtree(unpacked, ignore_errors=True)
        extract(brought, self.blobs.path, unpacked)
        accounts.give(unpacked, account)
        with accounts.acting_for(beside):
            carried.lay_over(unpacked, None, beside)
        shutil.rmtree(unpacked, ignore_errors=True)


def check_interpreter(asked: str | None) -> str | None:
    """The interpreter that this node runs for a path, a version or a name. Raises NotFound, InvalidInput."""
    return None if asked is None else str(interpreters.find(asked, os.environ))


def _named_python(python: str | None, folder: Path) -> str | None:
    """The interpreter by the name `python`, so that this is what `python` on the ranks' PATH is: beside
    `/usr/bin/python3.12` it is often another one, or none. Raises OSError."""
    if python is None:
        return None
    beside = Path(python).with_name("python")
    if beside.exists() and beside.samefile(python):
        return str(beside)
    own = folder / "bin"
    own.mkdir(exist_ok=True)
    own.chmod(0o755)  # ranks may be another user's
    for name in ("python", "python3"):
        (own / name).unlink(missing_ok=True)
        (own / name).symlink_to(python)
    return str(own / "python")
