"""Which keys do what: the registry's own, moved by `[console.keys]` of the config file.

    [console]
    theme = "nord"
    [console.keys]
    "job.cancel" = "ctrl+k"

A name that does not exist and a key that would mean two things at once are reported, never guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from console.tui.actions import ACTIONS, PICTURES, Action, by_id


@dataclass(frozen=True, slots=True)
class Keymap:
    """Keys that were moved: action id -> Textual key names, the first being the one that is shown."""

    moved: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def show(self, action: Action) -> str:
        """How the action's keys are written for people."""
        keys = self.moved.get(action.id)
        return action.show if keys is None else " ".join(map(readable, keys[:1]))

    def keys(self, action: Action) -> tuple[str, ...]:
        return self.moved.get(action.id, action.keys)

    @property
    def textual(self) -> dict[str, str]:
        """As `App.set_keymap` takes it."""
        return {name: ",".join(keys) for name, keys in self.moved.items()}


@dataclass(frozen=True, slots=True)
class Config:
    """The `[console]` part of the config file, and what is wrong with it."""

    theme: str = ""
    keymap: Keymap = field(default_factory=Keymap)
    problems: tuple[str, ...] = ()


def readable(key: str) -> str:
    """`^k` for `ctrl+k`."""
    return "^" + key.removeprefix("ctrl+") if key.startswith("ctrl+") else key


def read(path: Path) -> Config:
    """The config file; an absent one is an empty one."""
    try:
        with path.open("rb") as file:
            import tomllib

            held = tomllib.load(file)
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError) as error:
        return Config(problems=(f"{path}: {error}",))
    return parse(held.get("console", {}), str(path))


def parse(console: Any, where: str) -> Config:
    """The `[console]` table. Only what is right in it takes effect.

    Args:
        console: as TOML gave it.
        where: the file's name, for the problems.
    """
    if not isinstance(console, dict):
        return Config(problems=(f"{where}: [console] is not a table",))
    problems: list[str] = []
    theme = console.get("theme", "")
    if not isinstance(theme, str):
        problems.append(f"{where}: theme is not a name")
        theme = ""
    keys = console.get("keys", {})
    moved: dict[str, tuple[str, ...]] = {}
    movable = {action.id for action in ACTIONS if not action.keyed}
    for name, value in keys.items() if isinstance(keys, dict) else ():
        if name not in movable:
            problems.append(f"{where}: there is no action '{name}'; `?` shows what there is")
        elif not isinstance(value, str) or not value.strip(" ,"):
            problems.append(f'{where}: the key of {name} is not a name such as "ctrl+k"')
        else:
            moved[name] = tuple(key.strip() for key in value.split(",") if key.strip())
    keymap = Keymap(moved)
    for name in list(moved):
        if against := _clash(by_id(name), keymap):
            other, key = against
            problems.append(f"{where}: {readable(key)} of {name} is already {other.id}; not moved")
            del moved[name]
    return Config(theme, Keymap(dict(moved)), tuple(problems))


_SCREENS = ("cluster", "table", "job", "sweeps", "sweep", "happenings", "compare")
_PANES = {
    "cluster": ("heat", "queue", "events", "util"),
    "job": ("ranks", "files", "metrics", "gpus"),
    "sweep": ("board", "trials", *PICTURES),
}


def _together() -> list[frozenset[str]]:
    """Sets of scopes that work at the same time."""
    out = []
    for screen in _SCREENS:
        for pane in (*_PANES.get(screen, ()), ""):
            out.append(frozenset({screen, pane, "lines", "app"} - {""}))
    return out


def _clash(action: Action, keymap: Keymap) -> tuple[Action, str] | None:
    """Another action that works where this one does, on one of its keys."""
    keys = set(keymap.keys(action))
    for scopes in _together():
        if not scopes & set(action.scopes):
            continue
        for other in ACTIONS:
            if other.id != action.id and scopes & set(other.scopes):
                shared = keys & set(keymap.keys(other))
                if shared:
                    return other, min(shared)
    return None
