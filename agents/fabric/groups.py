"""Reservations as Ray keeps them: placement groups, which are handed on.

Ray takes its time to believe that what was given back is free: on a node that is full, a group made
right after another was removed waits for half a second, now and then for two. So a reservation that is
released is kept for a moment, and who asks for the very same gets it as it stands: the next attempt of
a gang that is started again, the next trial in a slot. Nobody else is kept waiting by it: whoever asks
for anything else on those nodes has it removed first.

Ray cannot rename a group, so which name stands for which group is known only here. A driver that takes
over knows each group by the name that it was made under. Where one was handed on, the controller finds a
name that nobody wants, releases it, and reserves what is wanted: which hands it on once more.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

PREFIX = "qd:"
"""Begins the names of our placement groups; others may have theirs in the same cluster."""

KEPT = 1.0
"""Seconds for which what was released may be had again. The next attempt asks within a tenth."""

NOTHING = 0.001
"""CPUs. A bundle of nothing is refused; a thousandth of a CPU is nothing to anybody."""

Bundles = list[tuple[str, float, float]]  # node id, CPUs, GPUs


@dataclass(frozen=True, slots=True)
class _Held:
    group: Any
    bundles: Bundles


@dataclass(frozen=True, slots=True)
class _Kept:
    group: Any
    bundles: Bundles
    until: float


class Groups:
    """All calls may block for as long as Ray's head does, and may come from several threads.

    Args:
        util: `ray.util`.
        monotonic: a clock in seconds that never jumps.
    """

    def __init__(self, util: Any, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._util, self._monotonic = util, monotonic
        self._lock = threading.Lock()  # around the two below, never around a call to Ray
        self._held: dict[str, _Held] = {}
        self._kept: list[_Kept] = []

    def reserve(self, name: str, bundles: Bundles, patience: float) -> bool:
        """All of it within `patience` seconds, or nothing.

        A group that has lost a node waits for that very incarnation of it, in vain: it is made anew.
        """
        bundles = _counted(bundles)
        group = self._find(name)
        if group is not None:
            if self._told(group) == bundles:
                self._hold(name, group, bundles)
                return True
            self._remove(name, group)
        if self._handed_on(name, bundles):
            return True
        self._remove_kept({node_id for node_id, _, _ in bundles})
        group = self._make(name, bundles)
        if not group.wait(patience):
            self._util.remove_placement_group(group)
            return False
        self._hold(name, group, bundles)
        return True

    def release(self, name: str) -> None:
        """Give it back. Unknown names are fine. Call `expire` when `KEPT` seconds have passed."""
        with self._lock:
            held = self._held.pop(name, None)
            if held is not None:  # in one step, as below: a group that nobody knows is left over
                self._keep(held.group, held.bundles)
                return
        group = self._find(name)
        if group is None:
            return
        bundles = self._told(group)  # another driver made it
        if bundles is None:  # it does not stand, so nobody can go on with it
            self._util.remove_placement_group(group)
            return
        with self._lock:
            self._keep(group, bundles)

    def _keep(self, group: Any, bundles: Bundles) -> None:
        """Once, however often it is released at a time: who is handed it must be the only one."""
        if all(kept.group.id != group.id for kept in self._kept):
            self._kept.append(_Kept(group, bundles, self._monotonic() + KEPT))

    def expire(self) -> None:
        """Remove what nobody has asked for again in time."""
        self._remove_kept(None)

    def names(self) -> list[str]:
        """Of all that is reserved. What is only kept is nobody's."""
        table = self._util.placement_group_table().values()
        with self._lock:
            known = {held.group.id.hex(): name for name, held in self._held.items()}
            kept = {kept.group.id.hex() for kept in self._kept}
        return sorted(
            known.get(group["placement_group_id"]) or _name_of(group["name"])
            for group in table
            # One that waits for a lost node still holds its share of the others.
            if group["state"] != "REMOVED"
            and group["name"].startswith(PREFIX)
            and group["placement_group_id"] not in kept
        )

    # -- one group ----------------------------------------------------------------------------------

    def _make(self, name: str, bundles: Bundles) -> Any:
        own = PREFIX + name
        if self._named(own) is not None:  # handed on, and still called so by Ray
            own += f"~{secrets.token_hex(4)}"
        return self._util.placement_group(
            [
                {"CPU": cpus or NOTHING} | ({"GPU": gpus} if gpus else {})
                for _, cpus, gpus in bundles
            ],
            strategy="PACK",
            name=own,
            lifetime="detached",
            bundle_label_selector=[{"ray.io/node-id": node_id} for node_id, _, _ in bundles],
        )

    def _find(self, name: str) -> Any | None:
        """The group that stands for a name, be it one that another driver made."""
        with self._lock:
            if name in self._held:
                return self._held[name].group
        group = self._named(PREFIX + name)
        return None if group is None or self._knows(group) else group

    def _named(self, own: str) -> Any | None:
        try:
            return self._util.get_placement_group(own)
        except ValueError:
            return None  # not there, or removed already

    def _knows(self, group: Any) -> bool:
        """Whether it stands for some name here, or is kept."""
        with self._lock:
            ours: Iterable[_Held | _Kept] = (*self._held.values(), *self._kept)
            return any(each.group.id == group.id for each in ours)

    def _told(self, group: Any) -> Bundles | None:
        """What Ray holds for it, on the nodes as they are now; None unless all of it is granted."""
        told = self._util.placement_group_table(group)
        lies_on, sizes = told["bundles_to_node_id"], told["bundles"]
        if told["state"] != "CREATED":
            return None
        return _counted(
            [
                (lies_on[index], sizes[index].get("CPU", 0.0), sizes[index].get("GPU", 0.0))
                for index in sorted(sizes)
            ]
        )

    def _hold(self, name: str, group: Any, bundles: Bundles) -> None:
        with self._lock:
            self._held[name] = _Held(group, bundles)

    def _remove(self, name: str, group: Any) -> None:
        with self._lock:
            self._held.pop(name, None)
        self._util.remove_placement_group(group)

    # -- what is kept -------------------------------------------------------------------------------

    def _handed_on(self, name: str, bundles: Bundles) -> bool:
        """Whether a group that was released a moment ago is just what is asked for."""
        while True:
            with self._lock:
                kept = next((each for each in self._kept if each.bundles == bundles), None)
                if kept is None:
                    return False
                # In one step: a group that nobody knows is removed as left over.
                self._kept.remove(kept)
                self._held[name] = _Held(kept.group, bundles)
            if self._told(kept.group) == bundles:
                return True
            self._remove(name, kept.group)  # it has lost a node meanwhile

    def _remove_kept(self, nodes: set[str] | None) -> None:
        """What lies on some of these nodes; None for what is out of its time."""
        now = self._monotonic()
        with self._lock:
            going = [
                kept
                for kept in self._kept
                if (now >= kept.until if nodes is None else nodes & {n for n, _, _ in kept.bundles})
            ]
            self._kept = [kept for kept in self._kept if kept not in going]
        for kept in going:
            self._util.remove_placement_group(kept.group)


def _counted(bundles: Bundles) -> Bundles:
    """As Ray counts, in ten-thousandths."""
    return [
        (node_id, 0.0 if cpus == NOTHING else round(float(cpus), 4), round(float(gpus), 4))
        for node_id, cpus, gpus in bundles
    ]


def _name_of(own: str) -> str:
    return own.removeprefix(PREFIX).partition("~")[0]
