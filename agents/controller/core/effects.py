"""Making effects true: one task per effect that is wanted, ended as soon as it is not.

Each effect is idempotent and tried until it has succeeded, so it does not matter how often it was
begun before, by this process or by one that was killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
from collections.abc import Callable
from typing import Protocol

from agents.controller.core.carrying import Carrier
from agents.controller.core.copying import Copier
from agents.controller.core.live import Live
from agents.controller.core.plans import launch_plan
from agents.controller.core.transfers import send_blobs
from agents.controller.nodes.fabric import Bundle, Fabric
from agents.controller.nodes.links import Link, Links
from agents.controller.stores.blobs import BlobStore
from agents.controller.stores.datasets import Datasets
from agents.controller.stores.secretstore import SecretStore
from jobs.base.errors import (
    Conflict,
    Damaged,
    InvalidInput,
    NotAllowed,
    NotFound,
    QuarterdeckError,
    Unreachable,
)
from jobs.life import lifecycle as lc
from jobs.snapshots.manifest import Manifest
from jobs.spec.runas import RanksAs
from jobs.wire import messages as wire

log = logging.getLogger(__name__)

STAGE_PATIENCE = 30.0
"""Seconds a node may be out of reach while a gang is staged on it. Nothing runs anywhere yet, so the
gang can be given up at once and placed elsewhere."""
UNLIMITED = 10 * 365 * 86_400.0
"""Seconds of a lease that does not end, at a guard."""
MEET_AGAIN = 0.05
"""Seconds between two looks at whether node rank 0 is staged."""
STOP_AGAIN = 3.0
"""Seconds after which a stop is said again; the agent's report ends it."""


class Applier(Protocol):
    async def apply(self, live: Live, event: lc.Event) -> None: ...
    async def take_report(self, live: Live, node: str, report: wire.AttemptReport) -> None: ...
    def reserve_name(self, live: Live) -> str: ...
    def detail(self, live: Live, text: str) -> None: ...
    async def staged(self, live: Live, event: lc.Staged, port: int | None, image: str) -> None: ...
    def lease(self, live: Live) -> float: ...
    def unrenewed(self, live: Live) -> float | None: ...


class Performer:
    """Performs effects for the reconciler.

    Args:
        monotonic: a clock in seconds that never jumps.
    """

    def __init__(
        self,
        cluster: str,
        fabric: Fabric,
        links: Links,
        blobs: BlobStore,
        datasets: Datasets,
        secrets: SecretStore,
        copier: Copier,
        carrier: Carrier,
        applier: Applier,
        monotonic: Callable[[], float],
        ray_address: Callable[[], str | None],
        ranks_as: RanksAs,
    ) -> None:
        self._cluster, self._fabric, self._links = cluster, fabric, links
        self._blobs, self._secrets, self._applier = blobs, secrets, applier
        self._datasets, self._copier, self._carrier = datasets, copier, carrier
        self._monotonic, self._ray_address, self._ranks_as = monotonic, ray_address, ranks_as

    async def drive(self, live: Live) -> None:
        """Perform what the job wants until it wants nothing more (it is queued again, or over)."""
        running: dict[lc.Effect, asyncio.Task[None]] = {}
        try:
            while True:
                live.wake.clear()
                wanted = dict.fromkeys(lc.effects_of(live.job))  # a set that keeps its order
                for effect in [effect for effect in running if effect not in wanted]:
                    running.pop(effect).cancel()
                for effect in wanted:
                    task = running.get(effect)
                    if task is None or task.done():
                        running[effect] = asyncio.create_task(self._until_done(live, effect))
                if not wanted and not live.holding:
                    return
                await live.wake.wait()
        finally:
            for task in running.values():
                task.cancel()

    async def _until_done(self, live: Live, effect: lc.Effect) -> None:
        started, failures = self._monotonic(), 0
        while True:
            try:
                try:
                    await self._perform(live, effect)
                except Unreachable as error:
                    gone = self._given_up(live, effect, started, error)
                    if gone is None:
                        raise
                    await self._applier.apply(live, gone)
                return
            except lc.IllegalTransition:
                return  # the job moved on while we acted; what it wants now is being done
            except Unreachable as error:
                self._applier.detail(live, error.message)
            except QuarterdeckError as error:
                log.warning("j%d: %s: %s", live.job.id, type(effect).__name__, error.message)
                self._applier.detail(live, error.message)
            except Exception:
                log.exception("j%d: %s", live.job.id, effect)
            await asyncio.sleep(min(0.2 * 2**failures, 5.0))
            failures += 1

    def _given_up(
        self, live: Live, effect: lc.Effect, started: float, error: Unreachable
    ) -> lc.Gone | None:
        """Allocations that were never launched cannot run: no lease needs to be waited for."""
        attempt = live.job.attempt
        if attempt is None or attempt.started_at is not None:
            return None
        if live.doubtful:  # it may have been launched all the same: then its lease has to end
            bound = self._applier.unrenewed(live)
            if bound is None or self._monotonic() < bound:
                return None
        if isinstance(effect, lc.Stop):
            return lc.Gone(attempt.epoch, effect.node, error.message)
        if isinstance(effect, lc.Stage):
            # Counted from the last contact: staging may take long while all is well.
            link = self._links.links.get(effect.node)
            heard = max(started, link.clock_at) if link is not None else started
            if self._monotonic() - heard > STAGE_PATIENCE:
                return lc.Gone(attempt.epoch, effect.node, error.message)
        return None

    async def _perform(self, live: Live, effect: lc.Effect) -> None:
        match effect:
            case lc.Reserve(nodes):
                await self._reserve(live, nodes)
            case lc.Stage(node, node_rank):
                await self._stage(live, node, node_rank)
            case lc.Launch(node, node_rank):
                await self._launch(live, node, node_rank)
            case lc.Stop(node, reason):
                await self._stop(live, node, reason)
            case lc.Release(epoch):
                await self._fabric.release(self._applier.reserve_name(live))
                await self._applier.apply(live, lc.Released(epoch))

    def bundles(self, live: Live) -> list[Bundle]:
        assert live.job.attempt is not None
        shape = live.shape
        return [Bundle(one.node, shape.cpus, shape.gpus) for one in live.job.attempt.allocations]

    async def _reserve(self, live: Live, nodes: tuple[str, ...]) -> None:
        granted = await self._fabric.reserve(self._applier.reserve_name(live), self.bundles(live))
        if granted:
            await self._applier.apply(live, lc.Granted())
        else:
            reason = (
                f"Ray has no room on {', '.join(nodes)}: something else holds it (Serve, a Ray job)"
            )
            await self._applier.apply(live, lc.Refused(reason))

    async def _stage(self, live: Live, node: str, node_rank: int) -> None:
        attempt = live.job.attempt
        assert attempt is not None
        _, agent = self._links.agent(node)
        key = live.key(self._cluster)
        resume = None
        if self._copier.concerns(live.job.id):
            resume = await self._copier.resume(live, key, node)
        try:
            plan = launch_plan(
                key=key,
                job=live.job.id,
                attempt=attempt,
                node_rank=node_rank,
                spec=live.spec,
                snapshot=live.snapshot,
                requirements=await asyncio.to_thread(self._requirements, live),
                user=live.user,
                data=self._datasets.of(live.spec.data, live.spec.features),
                image=live.image,
                carried=await self._carrier.carried(live, node_rank, node),
                models=self._datasets.of(live.spec.models),
                resume=resume,
                run_as=await asyncio.to_thread(self._run_as, live),
            )
            while True:
                reply = await agent.stage(plan)
                if reply["missing"]:
                    await self._send(live, node, agent, reply["missing"])
                    continue
                if reply["state"] != "working":
                    break
                self._applier.detail(live, f"{node}: {reply['detail']}")
                await asyncio.sleep(0.2)
        except (Conflict, Damaged, InvalidInput, NotAllowed, NotFound) as error:
            await self._applier.apply(
                live,
                lc.StageFailed(
                    attempt.epoch, node, error.message, "node" if live.doubtful else "job"
                ),
            )
            return
        if reply["state"] != "failed" and node_rank > 0:
            meeting = await self._meeting(live, attempt)
            if meeting is not None:
                self._applier.detail(live, f"{node}: reaching {meeting['node']}")
                reply = await agent.stage({**plan, "meet": meeting})
        if reply["state"] == "failed":
            blame = reply.get("blame", "job")
            failed = lc.StageFailed(attempt.epoch, node, reply["detail"], blame)
            await self._applier.apply(live, failed)
            return
        image = reply.get("image", "")
        if image and live.image and image != live.image:
            words = (
                f"image {live.spec.image}: {node} has it as {image}, another node as {live.image}; "
                "name it by its digest, or pull it anew there"
            )
            failed = lc.StageFailed(attempt.epoch, node, words, "job")
            await self._applier.apply(live, failed)
            return
        port = reply["port"] if node_rank == 0 else None
        staged = lc.Staged(attempt.epoch, node, reply.get("boot", ""))
        await self._applier.staged(live, staged, port, image)

    def _run_as(self, live: Live) -> str | None:
        """The account of the job's ranks; None: that of their node's agent. Blocking: it may ask a server.
        Raises NotAllowed."""
        if not self._ranks_as.separate or _ours(live):
            return None
        self._ranks_as.check(live.spec)
        return self._ranks_as.account(account_name(live.uid), live.user)

    async def _meeting(self, live: Live, attempt: lc.Attempt) -> wire.Meeting | None:
        """Where the gang's ranks will meet, once node rank 0 is staged and holds the place."""
        first = attempt.allocations[0].node
        while live.port is None:
            now = live.job.attempt
            if now is None or now.epoch != attempt.epoch or now.allocations[0].phase != "pending":
                return None
            await asyncio.sleep(MEET_AGAIN)
        address = self._address(first)
        return {"node": first, "address": address, "port": live.port}

    def _requirements(self, live: Live) -> str | None:
        """The text of the job's requirements file, as its snapshot holds it."""
        wanted = live.spec.requirements
        if wanted is None:
            return None
        if live.snapshot is None:
            raise InvalidInput(
                f"requirements: '{wanted}' needs a workdir", "Submit without --no-workdir."
            )
        manifest = Manifest.from_bytes(self._blobs.read(live.snapshot))
        for entry in manifest.files:
            if entry.path == wanted.removeprefix("./") and entry.sha256:
                return self._blobs.read(entry.sha256).decode("utf-8", "replace")
        raise InvalidInput(f"requirements: there is no file '{wanted}' in the workdir")

    async def _send(
        self, live: Live, node: str, agent: wire.AgentClient, missing: list[str]
    ) -> None:
        files = "1 file" if len(missing) == 1 else f"{len(missing)} files"

        def tell(progress: str) -> None:
            self._applier.detail(live, f"{node}: sending {files}, {progress}")

        self._applier.detail(live, f"{node}: sending {files}")
        await send_blobs(agent, [self._blobs, self._copier.copies.blobs], missing, tell)

    def _address(self, node: str) -> str:
        """Raises Unreachable for a node that has not been a member since this controller started."""
        link = self._links.links.get(node)
        if link is None:
            raise Unreachable(f"node {node} has not joined yet")
        return link.node.address

    async def _launch(self, live: Live, node: str, node_rank: int) -> None:
        attempt = live.job.attempt
        assert attempt is not None
        link, agent = self._links.agent(node)
        addresses = [self._address(one.node) for one in attempt.allocations]
        key = live.key(self._cluster)
        request: wire.LaunchRequest = {
            "key": key,
            "epoch": attempt.epoch,
            "master_addr": addresses[0],
            "master_port": live.port or 29500,
            "node_addresses": addresses,
            "secrets": self._secrets.load(live.job.id),
            "lease_until": self._lease(live, link, key),
            "ray_address": self._ray_address(),
        }
        try:
            report = await agent.launch(request)
        except (Conflict, InvalidInput, NotFound) as error:
            # The agent will not ever launch this one: tell it as the allocation's end. What it was told to
            # stage and knows no more was lost with the node's power, which is not the job's fault.
            outcome = "died" if isinstance(error, NotFound) or live.doubtful else "failed"
            await self._applier.apply(
                live, lc.Reported(attempt.epoch, node, "ended", outcome, error.message)
            )
            return
        if report["state"] != "ended" or not report["ranks"]:
            await self._applier.take_report(live, node, report)
        # Else it was over before this answer was: what it logged comes through the link, and with it
        # the end.

    def _lease(self, live: Live, link: Link, key: str) -> float:
        """Until when the guard lets the ranks run without us. Two copies of a service hurt nobody, so
        it is never fenced: its lease only says when its node is given up. What waits is never given up
        either."""
        until = link.grant(key, self._applier.lease(live))
        attempt = live.job.attempt
        waits = attempt is not None and attempt.waits
        return until + UNLIMITED if waits or live.spec.kind == "service" else until

    async def ask_after(self, live: Live, node: str) -> None:
        """Ask a node about an allocation that it does not tell of. That it was over there and
        forgotten is the one answer that proves something."""
        attempt = live.job.attempt
        assert attempt is not None
        request: wire.LaunchRequest = {
            "key": live.key(self._cluster),
            "epoch": attempt.epoch,
            "master_addr": "",
            "master_port": 0,
            "node_addresses": [],
            "secrets": {},
            "lease_until": 0.0,  # long over: nothing is ever started by this
        }
        try:
            _, agent = self._links.agent(node)
            await agent.launch(request)
        except Conflict:
            reason = "it had ended, and the node has forgotten it"
            ended = lc.Reported(attempt.epoch, node, "ended", "died", reason)
            await self._applier.apply(live, ended)
        except QuarterdeckError:
            pass

    async def _stop(self, live: Live, node: str, reason: str) -> None:
        attempt = live.job.attempt
        assert attempt is not None
        while True:
            _, agent = self._links.agent(node)
            request: wire.StopRequest = {
                "key": live.key(self._cluster),
                "epoch": attempt.epoch,
                "grace": live.spec.grace if live.grace is None else live.grace,
                "reason": reason,
            }
            try:
                report = await agent.stop(request)
            except Conflict as error:
                # It does not hold this attempt, and has met a later one of the job: this one is over
                # there and forgotten, which a registry that was restored cannot know.
                await self._applier.apply(
                    live, lc.Reported(attempt.epoch, node, "ended", "stopped", error.message)
                )
                return
            if report["state"] == "ended" and not report["ranks"]:
                # Never started, so there is nothing to wait for; all else comes through the link,
                # which passes an end on when its logs are here.
                await self._applier.take_report(live, node, report)
                return
            await asyncio.sleep(STOP_AGAIN)


def account_name(uid: int) -> str | None:
    """The account with this number here, if there is one. Blocking."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _ours(live: Live) -> bool:
    """Whether it is the front of services, which runs our own program and nobody's code. A root controller
    has no other account for it than the nodes' own."""
    command = ["python", "-m", "quarterdeck_front"]
    return os.getuid() == live.uid == 0 and live.spec.argv() == command
