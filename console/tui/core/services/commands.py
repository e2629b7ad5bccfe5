"""How a deployment's rollout is steered, and the words for it. Pure."""

from __future__ import annotations

from console.text import neutralise
from console.tui.core.base.commands import Command, Refusal
from console.tui.core.draw.format import count
from console.tui.core.services.list import open_rollout
from jobs.wire.serviceviews import DeploymentView, RolloutView


def _where(view: DeploymentView) -> str:
    return f"{neutralise(view['name'])} at {view['target']}"


def _command(
    verb: str, view: DeploymentView, question: str, effects: tuple[str, ...], done: str
) -> Command:
    target = f"{view['name']}/{view['target']}"
    return Command(
        verb, target, question, effects, done, dangerous=verb != "resume rollout", body={}
    )


def _evidence(rollout: RolloutView) -> str:
    errors = rollout["errors"]
    if not errors["new_seen"]:
        return "No request of it has been judged yet."
    return (
        f"So far {errors['new_bad']} of its {errors['new_seen']} requests failed, and "
        f"{errors['old_bad']} of {errors['old_seen']} of the version before."
    )


def promote(view: DeploymentView) -> Command | Refusal:
    """Give the new version all requests now."""
    rollout = open_rollout(view)
    if rollout is None or rollout["phase"] == "starting":
        return _no(view, "promote")
    version = neutralise(rollout["version"])
    effects = (
        f"It has {count(rollout['share'])}% of the requests now; the steps that are left are skipped.",
        _evidence(rollout),
    )
    return _command(
        "promote",
        view,
        f"Give {version} all requests of {_where(view)}?",
        effects,
        f"{version} has all requests of {_where(view)}",
    )


def pause(view: DeploymentView) -> Command | Refusal:
    """Stop at the step where it is; go on with one that is paused."""
    rollout = open_rollout(view)
    if rollout is None or rollout["phase"] == "starting":
        return _no(view, "pause")
    version, share = neutralise(rollout["version"]), count(rollout["share"])
    if rollout["phase"] == "paused":
        return _command(
            "resume rollout",
            view,
            f"Resume {version} of {_where(view)}?",
            (f"It is at {share}%, and its step starts again.", _evidence(rollout)),
            f"{version} of {_where(view)} goes on",
        )
    return _command(
        "pause rollout",
        view,
        f"Pause {version} of {_where(view)}?",
        (
            f"It stays at {share}% of the requests.",
            "It is still rolled back if it turns out to be worse.",
        ),
        f"{version} of {_where(view)} is paused",
    )


def abort(view: DeploymentView) -> Command | Refusal:
    """End the rollout: the version before has all requests."""
    rollout = open_rollout(view)
    if rollout is None:
        return _no(view, "abort")
    version, before = neutralise(rollout["version"]), rollout["before"]
    effects = (
        f"All requests go to {neutralise(before)}." if before else "Nothing serves after it.",
        f"The replicas of {version} are stopped once they have answered their requests.",
    )
    return _command(
        "abort rollout",
        view,
        f"Abort the rollout of {version} to {_where(view)}?",
        effects,
        f"the rollout of {version} to {_where(view)} is aborted",
    )


def rollback(view: DeploymentView) -> Command | Refusal:
    """Go back to the version before."""
    rollout = view["rollout"]
    ended_there = rollout is not None and rollout["phase"] in ("rolled_back", "aborted")
    if rollout is None or (rollout["before"] is None and not ended_there):
        return Refusal(f"{_where(view)} has no version to go back to.")
    # After a rollout that came to nothing, the version before the live one is not in the view.
    before = "the version before" if ended_there else neutralise(rollout["before"] or "")
    effects = (
        f"All requests go to {before}.",
        "Where its replicas are gone, they are started first, and take over when they are ready.",
    )
    return _command(
        "roll back",
        view,
        f"Roll {_where(view)} back to {before}?",
        effects,
        f"{_where(view)} goes back to {before}",
    )


def _no(view: DeploymentView, verb: str) -> Refusal:
    rollout = open_rollout(view)
    if rollout is None:
        return Refusal(f"{_where(view)} has no rollout to {verb}.")
    version = neutralise(rollout["version"])
    return Refusal(f"{version} is starting: there is nothing to {verb} until it is ready.")
