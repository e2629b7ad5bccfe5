"""Where `:` can go, best match first. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from console.tui.core.base.world import World
from console.tui.core.cluster.cluster import natural

OFFERED = 50
_SWEEP = re.compile(r"s[1-9]\d*")
_PIPELINE = re.compile(r"p[1-9]\d*")


@dataclass(frozen=True, slots=True)
class Place:
    kind: Literal["screen", "job", "sweep", "pipeline", "node"]
    name: str
    about: str

    @property
    def key(self) -> str:
        return f"{self.kind} {self.name}"


def complete(text: str, world: World, screens: Sequence[str]) -> list[Place]:
    """Places whose name or description matches: the name itself, then names that start so, then names
    or descriptions that have it inside; newest jobs first within each."""
    wanted = text.strip().lower()
    places = [Place("screen", name, "") for name in screens]
    places += [
        Place("job", job["id"], f"{job['state'].lower()} {job['name']} {job['user']}")
        for job in sorted(world.jobs.values(), key=lambda job: natural(job["id"]), reverse=True)
    ]
    places += [
        Place("node", node["name"], node["state"].lower())
        for node in sorted(world.nodes.values(), key=lambda node: natural(node["name"]))
    ]
    places += [
        Place("sweep", sweep["id"], f"{sweep['state'].lower()} {sweep['name']} {sweep['user']}")
        for sweep in sorted(world.sweeps.values(), key=lambda s: natural(s["id"]), reverse=True)
    ]
    if _SWEEP.fullmatch(wanted) and wanted not in world.sweeps:  # known only while they are watched
        places.append(Place("sweep", wanted, ""))
    places += [
        Place("pipeline", run["id"], f"{run['state'].lower()} {run['name']} {run['user']}")
        for run in sorted(world.pipelines.values(), key=lambda p: natural(p["id"]), reverse=True)
    ]
    if _PIPELINE.fullmatch(wanted) and wanted not in world.pipelines:
        places.append(Place("pipeline", wanted, ""))
    scored: list[tuple[int, int, Place]] = []
    for order, place in enumerate(places):
        name = place.name.lower()
        if name == wanted:
            score = 0
        elif name.startswith(wanted) or name.removeprefix("j") == wanted:
            score = 1
        elif wanted in name:
            score = 2
        elif wanted in place.about.lower():
            score = 3
        else:
            continue
        scored.append((score, order, place))
    scored.sort(key=lambda item: item[:2])
    return [place for _, _, place in scored[:OFFERED]]
