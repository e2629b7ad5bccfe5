"""One version on its way to a fleet, as a pure state machine: which host is how far, and what is next.

`handle(push, event, now)` gives the next state and notes for people. What is then to be done at a host
follows from the state alone (`todo`) and may be done twice: a controller that was killed does it again.

    WAITING ─▶ SENDING ─────────▶ SWITCHING ───────────▶ DONE          all of a wave: the next one begins
                │ all is there,    │ `current` is it,    │
                │ hashes are right │ health is well      │ a person: rollback
                ▼                  ▼                     ▼
              FAILED ◀── back ── RETURNING ───────▶ RETURNED

A host that fails stops the push: no other wave begins, and the hosts of its wave that have switched return to
what they had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from jobs.base.errors import Conflict
from jobs.base.words import counted
from jobs.life.vocabulary import Note

HostPhase = Literal["waiting", "sending", "switching", "done", "returning", "returned", "failed"]
PushPhase = Literal["running", "failing", "returning", "done", "failed", "returned"]
Todo = Literal["send", "switch", "return"]
OVER: tuple[PushPhase, ...] = ("done", "failed", "returned")


@dataclass(frozen=True, slots=True)
class At:
    """How far a host is. `sent`: bytes that are there. `reason`: why it failed, or what it waits for.
    `broken`: it failed, and returns or never switched; one that failed to return is not."""

    wave: int
    phase: HostPhase = "waiting"
    sent: int = 0
    reason: str = ""
    broken: bool = False

    @property
    def lost(self) -> bool:
        """It could not be made to return: nobody knows what it has."""
        return self.phase == "failed" and not self.broken


@dataclass(frozen=True, slots=True)
class Push:
    """A version for a fleet. `hosts` by URL, in the order of their waves; `wave` is the one in progress."""

    number: int
    fleet: str
    version: str  # digits:3
    size: int  # bytes
    hosts: Mapping[str, At]
    wave: int = 0
    phase: PushPhase = "running"
    reason: str = ""

    @property
    def over(self) -> bool:
        return self.phase in OVER

    def of_wave(self) -> dict[str, At]:
        return {url: at for url, at in self.hosts.items() if at.wave == self.wave}

    def having(self, url: str, at: At) -> Push:
        return replace(self, hosts={**self.hosts, url: at})


@dataclass(frozen=True, slots=True)
class Sent:
    """So many bytes are there; `whole`: all, and their hashes are right."""

    host: str
    size: int
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Switched:
    """The host has the version, and is well."""

    host: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The host cannot have it."""

    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class Returned:
    """The host has what it had before."""

    host: str


@dataclass(frozen=True, slots=True)
class Stuck:
    """The host is not reached, or is again (no reason)."""

    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rollback:
    """A person wants all hosts to have what they had."""

    user: str


Event = Sent | Switched | Failed | Returned | Stuck | Rollback


@dataclass(frozen=True, slots=True)
class Result:
    push: Push
    notes: tuple[Note, ...] = ()


def todo(push: Push) -> dict[str, Todo]:
    """What is to be done at which host now."""
    found: dict[str, Todo] = {}
    for url, at in push.hosts.items():
        if at.phase == "returning":
            found[url] = "return"
        elif push.phase == "running" and at.wave == push.wave:
            if at.phase in ("waiting", "sending"):
                found[url] = "send"
            elif at.phase == "switching":
                found[url] = "switch"
    return found


def handle(push: Push, event: Event, now: float) -> Result:
    """Apply one event. Raises Conflict for a rollback of what is over without having reached a host."""
    if isinstance(event, Rollback):
        return _rolled_back(push, event)
    # What is told of a host where that is not to be done (any more) is late: it changes nothing.
    what = todo(push).get(event.host)
    if what is None:
        return Result(push)
    at = push.hosts[event.host]
    match event:
        case Sent() if what == "send":
            phase: HostPhase = "switching" if event.whole else "sending"
            new = replace(at, phase=phase, sent=event.size, reason="")
            notes = (_note(push, "sent", event.host, "has all files, and their hashes are right"),)
            return Result(push.having(event.host, new), notes if event.whole else ())
        case Stuck():
            return Result(push.having(event.host, replace(at, reason=event.reason)))
        case Switched() if what == "switch":
            note = _note(push, "switched", event.host, "has it, and is well")
            return _advanced(push.having(event.host, replace(at, phase="done", reason="")), note)
        case Failed():
            return _failed(push, event, at)
        case Returned() if what == "return":
            phase = "failed" if at.broken else "returned"
            note = _note(push, "returned", event.host, "has what it had before")
            return _settled(push.having(event.host, replace(at, phase=phase)), note)
    return Result(push)


def _advanced(push: Push, *notes: Note) -> Result:
    """The next wave, when all hosts of this one have it."""
    if any(at.phase != "done" for at in push.of_wave().values()):
        return Result(push, notes)
    later = sorted({at.wave for at in push.hosts.values() if at.wave > push.wave})
    if not later:
        text = f"{push.version} is on all {counted(len(push.hosts), 'host')} of {push.fleet}"
        return Result(replace(push, phase="done"), (*notes, Note("edge.done", text)))
    new = replace(push, wave=later[0])
    text = (
        f"{push.version} goes to wave {_which(new)} of {push.fleet}: {_names(list(new.of_wave()))}"
    )
    return Result(new, (*notes, Note("edge.wave", text)))


def _failed(push: Push, event: Failed, at: At) -> Result:
    switching = at.phase == "switching"  # it may have switched
    new = replace(
        at,
        phase="returning" if switching else "failed",
        reason=event.reason,
        broken=at.phase != "returning",
    )
    push = push.having(event.host, new)
    note = _note(push, "failed", event.host, f"failed: {event.reason}", severity="warning")
    if push.phase == "running":
        back = [url for url, one in push.of_wave().items() if one.phase in ("done", "switching")]
        for url in back:
            push = push.having(url, replace(push.hosts[url], phase="returning"))
        push = replace(push, phase="failing", reason=f"{_short(event.host)}: {event.reason}")
    return _settled(push, note)


def _rolled_back(push: Push, event: Rollback) -> Result:
    back = [
        url
        for url, at in push.hosts.items()
        if at.phase in ("done", "switching", "returning") or at.lost
    ]
    if push.over and not back:
        raise Conflict(
            f"no host of {push.fleet} has {push.version} by its last push: nothing to roll back",
            f"`qd edge {push.fleet}` shows what the hosts have.",
        )
    for url in back:
        push = push.having(url, replace(push.hosts[url], phase="returning"))
    reason = f"rolled back by {event.user}"
    push = replace(push, phase="returning", reason=reason)
    text = f"{push.version} is taken back from {push.fleet} ({counted(len(back), 'host')}) by {event.user}"
    return _settled(push, Note("edge.rollback", text, "warning", user=event.user))


def _settled(push: Push, *notes: Note) -> Result:
    """Over, when nothing is left to be taken back."""
    if push.phase not in ("failing", "returning"):
        return Result(push, notes)
    if any(at.phase == "returning" for at in push.hosts.values()):
        return Result(push, notes)
    done = [url for url, at in push.hosts.items() if at.phase == "done"]
    back = [url for url, at in push.hosts.items() if at.phase == "returned" or at.broken]
    over: PushPhase = "failed" if push.phase == "failing" else "returned"
    text = f"{push.version} did not reach all of {push.fleet}: {push.reason}"
    if over == "returned":
        text = f"{push.version} is taken back from {push.fleet}: {push.reason}"
    if back:
        text += f"; with what they had before: {_names(back)}"
    if done:
        text += f"; with the new version: {_names(done)}"
    if lost := [url for url, at in push.hosts.items() if at.lost]:
        text += f"; not known what they have, try the rollback again: {_names(lost)}"
    return Result(replace(push, phase=over), (*notes, Note(f"edge.{over}", text, "warning")))


def _note(
    push: Push, kind: str, host: str, what: str, severity: Literal["info", "warning"] = "info"
) -> Note:
    return Note(
        f"edge.host.{kind}", f"{push.version} for {push.fleet}: {_short(host)} {what}", severity
    )


def _which(push: Push) -> str:
    return f"{push.wave + 1} of {max(at.wave for at in push.hosts.values()) + 1}"


def _short(url: str) -> str:
    return url.removeprefix("ssh://")


def _names(urls: list[str]) -> str:
    shown = [_short(url) for url in urls[:20]]
    return ", ".join(shown) + (f" and {len(urls) - 20} more" if len(urls) > 20 else "")


def to_json(push: Push) -> dict[str, Any]:
    hosts = [[url, asdict(at)] for url, at in push.hosts.items()]
    return {
        "size": push.size,
        "hosts": hosts,
        "wave": push.wave,
        "phase": push.phase,
        "reason": push.reason,
    }


def from_json(number: int, fleet: str, version: str, data: Mapping[str, Any]) -> Push:
    hosts = {url: At(**at) for url, at in data["hosts"]}
    return Push(
        number, fleet, version, data["size"], hosts, data["wave"], data["phase"], data["reason"]
    )
