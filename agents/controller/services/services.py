"""All services of a controller: taking them in, steering them, and the loop that makes them true.

Level-triggered, like the reconciler. Each pass reads what is so, has the jobs that are wanted, writes to
the front what follows from the registry, and lets the rollout's machine (`jobs.services.rollout`) decide
on what the front has seen. What it decides is stored with its events and audit rows before anything is
done about it, so a controller that is killed at any moment goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from sqlmodel import Session

from agents.controller.services.front import Front, Plant, ourselves
from agents.controller.services.kept import Address, Kept, Serving, serving
from agents.controller.services.metering import write_services
from agents.controller.services.replicas import GIVE_UP, Replicas
from agents.controller.services.scaling import Scaling
from agents.controller.services.shadows import Shadows
from agents.controller.services.views import certificate_trouble, deployment_view
from agents.loops import loop, woken
from jobs.base.errors import Conflict, InvalidInput
from jobs.base.names import job_name
from jobs.base.states import TERMINAL
from jobs.metrics.exposition import Page
from jobs.services import keys as apikeys
from jobs.services import rollout as ro
from jobs.services.front import (
    Baseline,
    asked,
    asked_of,
    backend_name,
    observe,
    service_name,
)
from jobs.services.judging import Truth, learnt
from jobs.services.scaling import changed
from jobs.services.spec import ServiceSpec
from jobs.store import feedback, flowwriting, servicekeys, writing
from jobs.store import services as store
from jobs.store.servicetables import DeploymentRow, ReleaseRow
from jobs.store.writing import Caller
from jobs.wire.serviceviews import DeploymentView, TargetName
from jobs.wire.views import EventView

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds between two passes when nothing hints at a change."""
WATCH_EVERY = 0.25
"""The same while a rollout is under way."""
HELD_EVERY = 0.5
"""The same while a service is at zero: a request may wait for its first replica."""


class Services:
    """Owns the deployments. Every change is one transaction, and then a hint."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._kept: dict[int, Kept] = {}
        self._front = Front(plant)
        self._wake = asyncio.Event()
        self._held_back = False
        self.passes = 0
        self._own_key = apikeys.PREFIX + secrets.token_urlsafe(32)
        self._replicas = Replicas(plant, self._front, self._apply, self._policy, self._wake.set)
        self._scaling = Scaling(plant, self._front, self._replicas, self._apply)
        self._shadows = Shadows(plant, self._replicas, self._apply)

    async def load(self) -> None:
        """Go on with every deployment that is in the registry."""

        def read(session: Session) -> list[tuple[DeploymentRow, dict[int, ReleaseRow]]]:
            rows = store.all_deployments(session)
            return [(row, store.releases(session, row.id or 0)) for row in rows]

        for row, releases in await self._plant.database.read(read):
            self._keep(row, releases)

    def _keep(self, row: DeploymentRow, releases: dict[int, ReleaseRow]) -> Kept:
        kept = Kept(
            row, store.deployment_of(row), Baseline.from_json(row.counted or None), releases
        )
        self._kept[kept.number] = kept
        return kept

    async def run(self) -> None:
        """Look after services, for ever."""
        await loop("services", self._turn, self._rest, partial(self._plant.tell, "services"))

    async def _turn(self) -> None:
        self._wake.clear()
        await self._pass()

    async def _rest(self) -> None:
        await woken(self._wake, self._pause())

    def _pause(self) -> float:
        if any(kept.deployment.busy for kept in self._kept.values()):
            return WATCH_EVERY
        asleep = any(self._scaling.asleep(kept) for kept in self._kept.values())
        return HELD_EVERY if asleep else LOOK_EVERY

    # -- the loop's parts ---------------------------------------------------------------------------

    async def _pass(self) -> None:
        self.passes += 1
        if not self._kept or self._held_back:
            return None
        held = await self._plant.database.read(store.replicas)
        self._shadows.forget(self._kept.values())
        for kept in self._kept.values():
            kept.held = held.get(kept.number, [])
            await self._apply(kept, ro.Tick())
            await self._replicas.look(kept)
            await self._read_keys(kept)
        if not any(ro.wants(kept.deployment).replicas for kept in self._kept.values()):
            for kept in self._kept.values():
                self._plant.tell(f"service {_key(kept)}", "")
            return await self._front.end()
        await self._front.ensure()
        services = [self._replicas.asked(kept) for kept in self._kept.values()]
        if not await self._front.exchange(asked(services)):
            return None
        for kept in self._kept.values():
            await self._judge(kept)
            await self._shadows.look(kept)
            self._plant.tell(f"service {_key(kept)}", self._trouble(kept))
        return None

    async def _read_keys(self, kept: Kept) -> None:
        while kept.policy is None:
            seen = kept.keys_changed

            def read(session: Session) -> tuple[bool, apikeys.Policy]:
                row = session.get(DeploymentRow, kept.number)
                assert row is not None
                return row.keyed, servicekeys.policy(session, row)

            kept.row.keyed, policy = await self._plant.database.read(read)
            if kept.keys_changed == seen:
                kept.policy = policy

    def _policy(self, kept: Kept) -> apikeys.Policy:
        """With a key of our own, which lives as long as we do: `qd predict` asks through the front too."""
        known = kept.policy or apikeys.Policy(kept.row.keyed)
        own = apikeys.Key(0, apikeys.digest_of(self._own_key))
        return apikeys.Policy(known.asks, (*known.keys, own))

    async def _judge(self, kept: Kept) -> None:
        """Let the rollout's machine know what the front has seen."""
        said = self._front.said
        for release in kept.deployment.releases:
            name = backend_name(kept.number, release.number)
            healthy = sum(said.get("servers", {}).get(name, {}).values())
            if not release.ready and release.state != "retired" and healthy >= release.replicas:
                await self._apply(kept, ro.Ready(release.number))
        event, baseline = observe(
            kept.deployment, kept.baseline, said.get("boot", ""), said.get("counts", {})
        )
        if event is not None or baseline.rollout != kept.baseline.rollout:
            await self._apply(kept, event or ro.Tick(), baseline=baseline)
        await self._scaling.look(kept)

    def _trouble(self, kept: Kept) -> str:
        """What a person has to look at, in words; empty when that is nothing."""
        deployment, rollout = kept.deployment, kept.deployment.rollout
        if rollout is not None and rollout.phase == "paused":
            return f"its rollout has stopped and asks: {rollout.reason}"
        if rollout is not None and rollout.phase == "shadowing" and rollout.reason:
            return f"its shadow waits for promote or abort: {rollout.reason}"
        servers = self._front.said.get("servers", {})
        lacks = self._front.lacks(asked_of(self._replicas.asked(kept)))
        if lacks:
            what = " and ".join(sorted(lacks))
            return f"the front that runs is too old for {what}: cancel its job, and another starts"
        certificate = certificate_trouble(self._certificate(kept), self._plant.now())
        if certificate:
            return certificate
        for release in deployment.releases:
            places = [place for place in kept.patience if place[0] == release.number]
            dying = [place for place in places if kept.patience[place].deaths >= GIVE_UP]
            if dying and release.state == "live":
                jobs = {(one.release, one.slot): one for one in kept.held}
                why = next((jobs[place].reason for place in dying if place in jobs), "")
                return f"a replica of {release.version} keeps ending" + (f": {why}" if why else "")
        if deployment.live is not None and self._front.said:
            healthy = servers.get(backend_name(kept.number, deployment.live), {})
            if not any(healthy.values()):
                comes = self._scaling.comes(kept)
                return "none of its replicas is ready: requests get 503" if comes is None else comes
        return ""

    # -- the one way to change a deployment ---------------------------------------------------------

    async def _apply(
        self,
        kept: Kept,
        event: ro.Event,
        *,
        who: Caller | None = None,
        baseline: Baseline | None = None,
        extra: Callable[[Session], None] | None = None,
    ) -> None:
        # Shielded: a caller that is cancelled must not leave memory behind what the registry holds.
        work = self._change(kept, event, who or ourselves(), baseline, extra)
        await asyncio.shield(asyncio.ensure_future(work))

    async def _change(
        self,
        kept: Kept,
        event: ro.Event,
        who: Caller,
        baseline: Baseline | None,
        extra: Callable[[Session], None] | None,
    ) -> None:
        async with kept.lock:
            now, before = self._plant.now(), kept.deployment
            result = ro.handle(before, event, now)
            if result.deployment == before and not result.notes and not baseline and not extra:
                return
            counted = baseline.to_json() if baseline is not None else None

            def write(session: Session) -> tuple[list[EventView], dict[int, ReleaseRow]]:
                if extra is not None:
                    extra(session)
                events = store.save(
                    session, kept.number, result.deployment, counted, result.notes, who, now
                )
                found = store.releases(session, kept.number) if extra is not None else kept.releases
                return events, found

            events, kept.releases = await self._plant.database.write(write)
            kept.deployment, kept.row.changed_at = result.deployment, now
            kept.baseline = baseline or kept.baseline
            self._plant.hub.announce(events)
            if result.notes:
                self._wake.set()
            self._plant.hub.publish("deployments", _key(kept), self._view(kept), keep=False)

    async def learn(
        self, number: int, truths: Sequence[Truth], write: Callable[[Session], None]
    ) -> None:
        """Store truths (`write`), and let a rollout judge by those that are new, in one transaction."""
        kept = self._kept.get(number)
        if kept is None:
            await self._plant.database.write(write)
            return
        async with kept.learning:  # which truths are new is read before they are stored
            asked = [truth.request for truth in truths]
            known = await self._plant.database.read(
                lambda session: feedback.known(session, number, asked)
            )
            new = [truth for truth in truths if truth.request not in known]
            event = learnt(kept.deployment, new)
            if event is None:
                await self._plant.database.write(write)
            else:
                await self._apply(kept, event, extra=write)

    # -- what people ask ----------------------------------------------------------------------------

    async def deploy(
        self,
        spec: ServiceSpec,
        target: TargetName,
        who: Caller,
        *,
        port: int,
        snapshot: str | None,
        size: tuple[int, int] | None,
        digest: str | None = None,
        check: Callable[[Session], object] | None = None,
    ) -> DeploymentView:
        """Record a release, durably, and begin to roll it out.

        Args:
            port: where the front listens, if the name is new at this target.
            size: files and bytes of the snapshot.
            digest: of the model version, where it is one.
            check: refuses in the transaction that records the release.

        Raises:
            Conflict: another one is being rolled out.
        """
        now = self._plant.now()
        known = await self._plant.database.write(
            lambda session: store.get_or_add(session, spec.name, target, who, spec.bind, port, now)
        )
        kept = self._kept.get(known.id or 0) or self._keep(known, {})
        self._check_shadow(kept, spec)
        number = max(kept.releases, default=0) + 1
        version = spec.version or str(number)

        def record(session: Session) -> None:
            if check is not None:
                check(session)
            if snapshot is not None and size is not None:
                writing.save_snapshot(session, snapshot, *size, now)
            row = session.get(DeploymentRow, kept.number)
            assert row is not None
            row.user, row.uid = who.user, who.uid
            if spec.port is not None:
                row.port = spec.port
            row.bind = spec.bind
            if spec.keys is not None:
                row.keyed = spec.keys
            if spec.tls is not None:
                row.tls = asdict(spec.tls) if spec.tls else None
            session.add(row)
            store.add_release(
                session, row, number, version, spec, who, now, snapshot=snapshot, digest=digest
            )
            if who.via is not None:
                left = {
                    "deployment": kept.number,
                    "release": number,
                    "service": spec.name,
                    "version": version,
                }
                flowwriting.effect(session, who.via, left)

        replicas, scale = spec.first_replicas, spec.scale
        if scale is None and "scale" in spec.model_fields_set:  # switched off, not left out
            replicas = spec.replicas
        event = ro.Deployed(number, version, replicas, spec.plan(), who.user, scale)
        await self._apply(kept, event, who=who, extra=record)
        kept.row.user, kept.row.uid, kept.row.bind = who.user, who.uid, spec.bind
        kept.row.port = spec.port or kept.row.port
        if spec.tls is not None:
            kept.row.tls = asdict(spec.tls) if spec.tls else None
        self._forget_keys(kept)
        return self._view(kept)

    @staticmethod
    def _check_shadow(kept: Kept, spec: ServiceSpec) -> None:
        """Raises InvalidInput unless our model server answers for both versions."""
        live = kept.deployment.live
        if spec.shadow is None or live is None or (spec.ours and kept.spec(live).ours):
            return
        raise InvalidInput(
            "shadow: our model server sends and compares copies, and it does not answer for both versions",
            "Leave it out; canary: works with any program.",
        )

    async def ask(
        self, name: str, target: str | None, event: ro.Ask, who: Caller
    ) -> DeploymentView:
        """Steer a rollout.

        Raises:
            NotFound: no such service. Conflict: it makes no sense now.
        """
        kept = await self._find(name, target)
        await self._apply(kept, event, who=who)
        self._wake.set()
        return self._view(kept)

    async def rescale(
        self, name: str, target: str | None, how: int | Mapping[str, Any], who: Caller
    ) -> DeploymentView:
        """Have a number of replicas, or scale automatically.

        Args:
            how: the number, or fields of a scale over those that there are.

        Raises:
            NotFound: no such service. Conflict: nothing serves. InvalidInput: no such scale.
        """
        kept = await self._find(name, target)
        if isinstance(how, int):
            event = ro.Rescale(None, how, who.user)
        else:
            live = kept.deployment.release(kept.deployment.live)
            known = live.scale if live is not None else None
            event = ro.Rescale(changed(known, how), 1, who.user)
        await self._apply(kept, event, who=who)
        self._wake.set()
        return self._view(kept)

    def keys_changed(self, deployment: int) -> None:
        """Its keys are others in the registry: have the front know."""
        self._forget_keys(self._kept[deployment])

    def _forget_keys(self, kept: Kept) -> None:
        kept.keys_changed += 1
        kept.policy = None
        self._wake.set()

    def hold(self) -> None:
        """Begin nothing more until the controller is started again: the cluster is being stopped."""
        self._held_back = True

    async def _find(self, name: str, target: str | None) -> Kept:
        row = await self._plant.database.read(lambda session: store.find(session, name, target))
        return self._kept[row.id or 0]

    def deployment(self, number: int) -> ro.Deployment:
        """As the registry holds it."""
        return self._kept[number].deployment

    def find(self, name: str, target: str) -> ro.Deployment | None:
        """What is deployed under a name, if anything is."""
        kept = (
            one for one in self._kept.values() if (one.row.name, one.row.target) == (name, target)
        )
        return next((one.deployment for one in kept), None)

    def serves(self, name: str, target: str) -> str | None:
        """The digest of the model version that has the traffic there, when nothing else is wanted."""
        for kept in self._kept.values():
            live = kept.deployment.live
            if (kept.row.name, kept.row.target) == (name, target) and live is not None:
                return None if kept.deployment.busy else kept.releases[live].digest
        return None

    def views(self) -> list[DeploymentView]:
        shown = sorted(self._kept.values(), key=lambda kept: (kept.row.name, kept.row.target))
        return [self._view(kept) for kept in shown if self._is_shown(kept)]

    @staticmethod
    def _is_shown(kept: Kept) -> bool:
        """Not what was taken down and is gone."""
        there = bool(kept.releases) and not kept.deployment.removed
        return there or bool(ro.wants(kept.deployment).replicas)

    def meter(self, page: Page) -> None:
        """Add what services have done to a page of metrics."""
        shown = [kept for kept in self._kept.values() if self._is_shown(kept)]
        views = [(kept.number, self._view(kept)) for kept in shown]
        write_services(page, views, self._front.said)

    async def view(self, name: str, target: str | None) -> DeploymentView:
        """Raises NotFound."""
        return self._view(await self._find(name, target))

    async def address(self, name: str, target: str | None) -> Address:
        """Where the front listens for a service.

        Raises NotFound, Conflict when nothing answers there.
        """
        kept = await self._find(name, target)
        if kept.deployment.live is None:
            raise Conflict(
                f"{name} has no version that serves at {kept.row.target}",
                "`qd deployments` shows what it waits for.",
            )
        wild = kept.row.bind in ("0.0.0.0", "*", "::", "[::]")  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if wild else kept.row.bind.strip("[]")
        release = kept.releases[kept.deployment.live]
        is_model = release.digest is not None and "model" not in release.spec
        key = self._own_key if kept.row.keyed else None
        sha256 = self._certificate(kept).get("sha256", "") if kept.row.tls else None
        return Address(host, kept.row.port, is_model, key, sha256)

    def _certificate(self, kept: Kept) -> dict[str, Any]:
        """What the front says of a service's certificate; nothing where it has none."""
        told = self._front.said.get("certificates", {}).get(service_name(kept.number), {})
        return dict(told) if kept.row.tls else {}

    def serving(self) -> list[Serving]:
        """Every deployment that has a live version."""
        found = [serving(kept) for kept in self._kept.values()]
        return [one for one in found if one is not None]

    async def found(self, name: str, target: str | None) -> Serving:
        """One of them. Raises NotFound, and Conflict when no version serves there."""
        found = serving(await self._find(name, target))
        if found is None:
            raise Conflict(
                f"{name} has no version that serves", "`qd deployments` shows its state."
            )
        return found

    def ports(self) -> dict[int, tuple[str, str]]:
        """Those that are given to services, with name and target."""
        return {kept.row.port: (kept.row.name, kept.row.target) for kept in self._kept.values()}

    def _view(self, kept: Kept) -> DeploymentView:
        bind, port = kept.row.bind, kept.row.port
        return deployment_view(
            kept.deployment,
            user=kept.row.user,
            url=f"{'https' if kept.row.tls else 'http'}://{bind}:{port}",
            keyed=kept.row.keyed,
            certificate_until=self._certificate(kept).get("until"),
            changed_at=kept.row.changed_at,
            held=kept.held,
            said=self._front.said,
            settled=self._replicas.does(kept),
            problem=self._problem(kept),
            scaling=self._scaling.view(kept),
        )

    def _problem(self, kept: Kept) -> str:
        """Why a release that starts, or comes back from zero, is not ready yet, as far as is known."""
        rollout = kept.deployment.rollout
        if rollout is None or rollout.phase != "starting":
            return self._scaling.comes(kept) or ""
        for one in kept.held:
            if one.release == rollout.new and one.state not in ("RUNNING", *TERMINAL):
                reason = self._plant.reconciler.reasons.get(one.job) or one.reason
                return f"{job_name(one.job)} is {one.state.lower()}" + (
                    f": {reason}" if reason else ""
                )
        return str(self._front.said.get("error", ""))


def _key(kept: Kept) -> str:
    return f"{kept.row.name}@{kept.row.target}"
