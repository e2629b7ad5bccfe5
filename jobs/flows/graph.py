"""What depends on what. A graph is, for each step, the steps that it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Graph = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Branch:
    """A step in the drawing of a graph as a tree.

    Args:
        ways: for each level above it and its own, whether more follows there; empty for a root.
        also: what it needs beyond the step it is drawn below.
    """

    name: str
    ways: tuple[bool, ...]
    also: tuple[str, ...]


def cycle(needs: Graph) -> list[str]:
    """Steps that wait for each other in a circle, the first one again at the end; empty without one."""
    done: set[str] = set()
    for start in needs:
        trail: list[str] = []
        on_trail: dict[str, int] = {}
        stack: list[tuple[str, int]] = [(start, 0)]
        while stack:
            name, at = stack.pop()
            if at == 0:
                if name in done:
                    continue
                on_trail[name] = len(trail)
                trail.append(name)
            wanted = needs[name]
            if at < len(wanted):
                stack.append((name, at + 1))
                other = wanted[at]
                if other in on_trail:
                    return [*trail[on_trail[other] :], other]
                stack.append((other, 0))
            else:
                done.add(name)
                trail.pop()
                del on_trail[name]
    return []


def order(needs: Graph) -> list[str]:
    """The steps, each after those that it needs, otherwise as they are written."""
    found: dict[str, None] = {}
    for start in needs:
        stack = [(start, False)]
        while stack:
            name, ready = stack.pop()
            if name in found:
                continue
            if ready:
                found[name] = None
                continue
            stack.append((name, True))
            stack += [(other, False) for other in reversed(needs[name]) if other not in found]
    return list(found)


def before(needs: Graph, names: Iterable[str]) -> set[str]:
    """All that these need, directly and by way of others."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        for other in needs[waiting.pop()]:
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def after(needs: Graph, names: Iterable[str]) -> set[str]:
    """All that need these, directly and by way of others."""
    users: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for other in wanted:
            users[other].append(name)
    return before(users, names)


def tree(needs: Graph) -> list[Branch]:
    """The graph as a tree, from top to bottom: each step below the last of those that it needs.

    Args:
        needs: as `order` gives it, each step after those that it needs.
    """
    place = {name: number for number, name in enumerate(needs)}
    below: dict[str | None, list[str]] = {}
    also: dict[str, tuple[str, ...]] = {}
    for name, wanted in needs.items():
        needed = sorted(wanted, key=place.__getitem__)
        below.setdefault(needed[-1] if needed else None, []).append(name)
        also[name] = tuple(needed[:-1])
    found: list[Branch] = []
    waiting: list[tuple[str, tuple[bool, ...]]] = [(name, ()) for name in below.get(None, [])[::-1]]
    while waiting:
        name, ways = waiting.pop()
        found.append(Branch(name, ways, also[name]))
        inner = below.get(name, [])
        waiting += [(other, (*ways, other != inner[-1])) for other in reversed(inner)]
    return found
