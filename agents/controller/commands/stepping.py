"""The steps of pipelines that are no jobs, taken by the same commands as people use.

What a command changes and what the step leaves are recorded in one transaction (`flowwriting.effect`), so
a controller that is killed in between finds either both or neither. Waiting is looking: nothing is kept
in memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlmodel import Session

from agents.controller.commands import evaluating, publishing, releasing
from agents.controller.commands import models as rules
from agents.controller.commands.services import Version, deploy_model, model_service
from agents.controller.commands.submitting import check_fits
from agents.controller.core.live import Live
from agents.controller.flows.acts import Look, Order
from jobs.access.roles import Role
from jobs.base.errors import Conflict, InvalidInput, NotAllowed, NotFound
from jobs.base.units import format_duration
from jobs.base.words import counted
from jobs.data.names import parse_ref as parse_data
from jobs.flows.acts import Act, Approval, Deploy, Evaluate, GateStep, Message, Register
from jobs.flows.course import End
from jobs.flows.params import unknown
from jobs.models.evaluations import evaluation_number
from jobs.models.names import ModelRef, parse_ref, version_name
from jobs.services import rollout as ro
from jobs.services.spec import ServiceSpec
from jobs.store import flowwriting, models
from jobs.store.alerttables import AlertNoteRow
from jobs.store.copies import Copy
from jobs.store.writing import Caller

if TYPE_CHECKING:
    from agents.controller.controller import Controller


class Stepping:
    """Implements `agents.controller.flows.acts.Acts`."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._released = releasing.Releases(controller)

    async def copied(self, live: Live, copy: Copy) -> None:
        """See `Acts.copied`."""
        await self._released.publish(live, copy)

    async def check(self, act: Act, asked: Mapping[str, str | None], who: Caller) -> None:
        """See `Acts.check`."""
        if who.role < Role.OPERATOR:
            raise NotAllowed(f"{who.user} may not do this", "Ask an operator.")
        model = asked.get("model")
        if isinstance(act, Register):
            if model is not None and parse_ref(model) != ModelRef(model):
                raise InvalidInput(f"model: found {model}; allowed: a name without a version")
        elif model is not None:
            ref = parse_ref(model)
            await self._controller.db.read(lambda session: models.get_version(session, ref)[1].id)
        if isinstance(act, Evaluate) and (data := asked.get("data")) is not None:
            await self._controller.datasets.pinned({"data": parse_data(data)})
        if isinstance(act, Deploy):
            spec = ServiceSpec.from_json(
                model_service(Version("x", "1", "", "model.onnx"), act.options())
            )
            check_fits(self._controller, spec.job("1"))
        if isinstance(act, Message):
            known = dict.fromkeys(self._controller.alerts.channels())
            for name in act.to:
                if name not in known:
                    raise InvalidInput(f"to: {unknown(name, known, 'channel')}")

    async def look(self, order: Order) -> Look:
        """See `Acts.look`."""
        if order.stopping and order.left is None:
            return Look(End("CANCELLED", "it had done nothing yet"))
        match order.act:
            case Register() as act:
                return await self._register(order, act)
            case Evaluate() as act:
                return await self._evaluate(order, act)
            case GateStep() as act:
                return await self._gate(order, act)
            case Approval():
                return await self._approval(order)
            case Deploy() as act:
                return await self._deploy(order, act)
            case Message() as act:
                return await self._message(order, act)
            case _:
                raise InvalidInput(f"unknown kind of step: {type(order.act).__name__}")

    async def _register(self, order: Order, act: Register) -> Look:
        left = order.left
        if left is None:
            via = order.who.via
            assert via is not None
            run = await self._run(order.asked["run"])
            view = await publishing.register(
                self._controller,
                order.who,
                order.asked["model"],
                run,
                outputs=act.outputs,
                tags={"pipeline": f"p{via.pipeline}"},
            )
            left = {"model": view["id"]}
        return Look(End("SUCCEEDED", left=left))

    async def _run(self, text: str) -> str:
        """The run that is meant: of a sweep, that of its best trial."""
        if not text.startswith("s"):
            return text

        def best(session: Session) -> str:
            trial = flowwriting.best_of(session, int(text[1:]))
            if trial is None or trial.job_id is None:
                raise NotFound(f"{text} has no best trial")
            return f"j{trial.job_id}"

        return await self._controller.db.read(best)

    async def _evaluate(self, order: Order, act: Evaluate) -> Look:
        """The job runs on meanwhile, as every other; a step that is stopped takes it along."""
        if order.left is None:
            asked = act.evaluation(order.asked["data"])
            made = await evaluating.evaluate(
                self._controller, order.who, order.asked["model"], asked
            )
            return Look(waits=f"{made['id']}: {made['job']} measures {made['model']}")
        number = evaluation_number(str(order.left["evaluation"]))
        view = await evaluating.shown(self._controller, number)
        what = f"{view['model']} on {view['data']} ({view['id']})"
        if view["state"] == "DONE":
            return Look(End("SUCCEEDED", left=order.left))
        if view["state"] == "FAILED":
            return Look(End("FAILED", f"could not measure {what}: {view['reason']}"))
        late = order.timeout is not None and order.now - order.since >= order.timeout
        if not (late or order.stopping):
            return Look(waits=f"{view['job']}, which measures {what}")
        with contextlib.suppress(Conflict):  # it has ended at this moment
            await self._controller.reconciler.cancel(int(view["job"][1:]), order.who)
        if order.stopping:
            return Look(End("CANCELLED", f"{view['job']} was cancelled"))
        assert order.timeout is not None
        return Look(End("FAILED", f"measuring {what} took over {format_duration(order.timeout)}"))

    async def _gate(self, order: Order, act: GateStep) -> Look:
        left = order.left
        if left is None:
            ref = parse_ref(order.asked["model"])
            view = await rules.run_gate(self._controller, order.who, ref, act.gate())
            failed = [
                f"{one['asked']}: {one['why']}"
                for one in view["document"]["conditions"]
                if not one["passed"]
            ]
            left = {
                "model": view["document"]["version"],
                "evidence": view["evidence"],
                "failed": "; ".join(failed),
            }
        why = str(left["failed"])
        if why:
            return Look(End("FAILED", f"{left['model']} was stopped by gate {act.name}: {why}"))
        return Look(End("SUCCEEDED", left=left))

    async def _approval(self, order: Order) -> Look:
        """Nobody but people approves: at least one of them, whatever the policy asks."""
        ref, signers = parse_ref(order.asked["model"]), await self._controller.signers()

        def read(session: Session) -> tuple[str, str, str, int, int]:
            model, row = models.get_version(session, ref)
            where = models.standing_of(session, model, row, order.now, signers)
            name = version_name(model.name, row.number)
            return name, where.state, where.reason, len(where.counted), where.needed

        name, state, reason, given, needed = await self._controller.db.read(read)
        if state == "APPROVED" and given:
            return Look(End("SUCCEEDED", left={"model": name}))
        if state in ("REJECTED", "ARCHIVED"):
            return Look(End("FAILED", f"{name} is {reason}"))
        if order.timeout is not None and order.now - order.since >= order.timeout:
            why = f"{name} was not approved within {format_duration(order.timeout)}: {reason}"
            return Look(End("FAILED", why))
        people = counted(max(needed - given, 1), "approver")
        also = "" if reason.startswith("needs ") and ";" not in reason else f" ({reason})"
        return Look(waits=f"approval of {name} by {people}: qd model approve {name}{also}")

    async def _deploy(self, order: Order, act: Deploy) -> Look:
        services = self._controller.services
        if order.left is None:
            return await self._begin(order, act)
        name, release = str(order.left["service"]), int(order.left["release"])
        deployment = services.deployment(int(order.left["deployment"]))
        rollout = deployment.rollout
        over = rollout is None or rollout.new != release or not rollout.open
        version = f"{parse_ref(order.asked['model']).name}:{order.left['version']}"
        if not over:
            assert rollout is not None
            late = order.timeout is not None and order.now - order.since >= order.timeout
            if not (order.stopping or late):
                return Look(waits=_standing(deployment, rollout, version))
            await services.ask(name, act.to, ro.Ask("abort", order.who.user), order.who)
            if late and not order.stopping:
                assert order.timeout is not None
                why = f"the rollout of {version} took over {format_duration(order.timeout)}"
                return Look(End("FAILED", f"{why}, and was aborted"))
            return Look(End("CANCELLED", "its rollout was aborted"))
        if release not in (deployment.live, deployment.previous):
            known = rollout is not None and rollout.new == release
            why = rollout.reason if rollout is not None and known else "another release came"
            aborted = rollout is not None and rollout.phase == "aborted"
            told = f"{version} {why}" if aborted else f"{version} was rolled back: {why}"
            return Look(End("FAILED", told))
        if act.alias is not None:
            await rules.set_alias(self._controller, order.who, parse_ref(version), act.alias)
        return Look(End("SUCCEEDED", left={"model": version}))

    async def _begin(self, order: Order, act: Deploy) -> Look:
        """Deploy, once no other version is being rolled out."""
        ref = parse_ref(order.asked["model"])
        name = act.service or ref.name
        found = self._controller.services.find(name, act.to)
        if found is not None and found.busy:
            assert found.rollout is not None
            running = found.release(found.rollout.new)
            version = running.version if running is not None else "another version"
            return Look(waits=f"the rollout of {name} {version} at {act.to} to end")
        version, digest = await self._controller.db.read(lambda s: _named(s, ref))
        if self._controller.services.serves(name, act.to) == digest:
            if act.alias is not None:
                await rules.set_alias(self._controller, order.who, parse_ref(version), act.alias)
            return Look(End("SUCCEEDED", left={"model": version}))
        view = await deploy_model(
            self._controller, order.who, ref=version, options=act.options(), target=act.to
        )
        return Look(waits=f"the rollout of {view['name']} at {act.to}")

    async def _message(self, order: Order, act: Message) -> Look:
        """A note for each channel, delivered as those of alerts are: at least once."""
        if order.left is None:
            to = act.to or tuple(self._controller.alerts.channels())
            via, text = order.who.via, order.asked["text"]
            assert via is not None
            notes = [
                AlertNoteRow(channel=name, text=text, severity=act.severity, at=order.now)
                for name in to
            ]

            def write(session: Session) -> None:
                flowwriting.effect(session, via, {"channels": " ".join(to)})
                session.add_all(notes)

            await self._controller.db.write(write)
            self._controller.alerts.delivery.wake()
        return Look(End("SUCCEEDED"))


def _named(session: Session, ref: ModelRef) -> tuple[str, str]:
    """The exact version, and its digest. Raises NotFound."""
    model, row = models.get_version(session, ref)
    return version_name(model.name, row.number), row.digest


def _standing(deployment: ro.Deployment, rollout: ro.Rollout, version: str) -> str:
    """What a rollout waits for, in words."""
    plan, where = rollout.plan, f"{version} at {deployment.target}"
    if rollout.phase == "starting":
        return f"{where} to be ready"
    if rollout.phase == "paused":
        ask = f"qd rollout {deployment.name} promote, or abort"
        return f"a person: {where} has stopped, {rollout.reason}: {ask}"
    share = f"{plan.steps[rollout.step]:g} % of the requests"
    return f"the canary {where}, {share}"
