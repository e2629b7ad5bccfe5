"""A deployment as JSON, and back: what the registry holds of it between two events."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from jobs.services.evidence import UNSEEN, Counts, Evidence
from jobs.services.rollout import Deployment, Plan, Release, Rollout
from jobs.services.scaling import Scale
from jobs.services.shadow import Tally


def to_json(deployment: Deployment) -> dict[str, Any]:
    """What changes from event to event; name and target are columns of their own."""
    return {
        "releases": [_release_to_json(release) for release in deployment.releases],
        "live": deployment.live,
        "rollout": None if deployment.rollout is None else _rollout_to_json(deployment.rollout),
        "removed": deployment.removed,
        "previous": deployment.previous,
    }


def from_json(number: int, name: str, target: str, data: dict[str, Any]) -> Deployment:
    rollout = data.get("rollout")
    return Deployment(
        id=number,
        name=name,
        target=target,  # type: ignore[arg-type]  # only targets are ever stored
        releases=tuple(_release(item) for item in data.get("releases", ())),
        live=data.get("live"),
        rollout=None if rollout is None else _rollout(rollout),
        removed=data.get("removed", False),
        previous=data.get("previous"),
    )


def _rollout_to_json(rollout: Rollout) -> dict[str, Any]:
    sources = {name: tally.to_json() for name, tally in rollout.sources.items()}
    return asdict(replace(rollout, sources={})) | {"sources": sources}


def _release_to_json(release: Release) -> dict[str, Any]:
    scale = None if release.scale is None else release.scale.model_dump(mode="json")
    return asdict(replace(release, scale=None)) | {"scale": scale}


def _release(data: dict[str, Any]) -> Release:
    scale = data.get("scale")
    return Release(**data | {"scale": None if scale is None else Scale.model_validate(scale)})


def _rollout(data: dict[str, Any]) -> Rollout:
    plan = data["plan"]
    return Rollout(
        **data
        | {
            "plan": Plan(**plan | {"steps": tuple(plan["steps"])}),
            "errors": _evidence(data["errors"]),
            "slow": _evidence(data["slow"]),
            "block": tuple(Counts(**one) for one in data.get("block", ({}, {}))),
            "wrong": _evidence(data["wrong"]) if "wrong" in data else UNSEEN,
            "sources": {
                name: Tally.from_json(one) for name, one in data.get("sources", {}).items()
            },
        }
    )


def _evidence(data: dict[str, Any]) -> Evidence:
    return Evidence(Counts(**data["old"]), Counts(**data["new"]), tuple(data["bets"]))
