"""What the supervisor decides, without doing any of it: when to restart, and whether an `up` fits."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from jobs.base.errors import Conflict, InvalidInput

DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before the first, second ... restart in a row. The first is immediate, because most deaths
are accidents; the last is short enough that a person who fixed the cause need not do more."""

STEADY = 60.0
"""Seconds that a program must stay up before its earlier deaths are forgotten."""

REMEMBERED = 20
"""Restart times kept for `qd status`."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often a program died in a row."""

    deaths: int = 0

    def after_death(self, up_for: float) -> tuple[Backoff, float]:
        """The next state, and how many seconds to wait before the restart.

        Args:
            up_for: seconds that the program ran before it died.
        """
        deaths = 0 if up_for >= STEADY else self.deaths
        return replace(self, deaths=deaths + 1), DELAYS[min(deaths, len(DELAYS) - 1)]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line of `qd up` or `qd join` says; None where nothing was said.

    `head` is the "host:port" of the cluster to join; without it the node makes its own cluster.
    `address` is where this node listens, `name` what it is called, `ports` the first of the hundred
    ports that it listens on (`head.pinned`).
    """

    cpus: int | None = None
    gpus: int | None = None
    simulate_gpus: int | None = None
    address: str | None = None
    head: str | None = None
    name: str | None = None
    ports: int | None = None

    def __post_init__(self) -> None:
        """Raises InvalidInput for what no machine can have."""
        if self.gpus is not None and self.simulate_gpus is not None:
            raise InvalidInput(
                "a node has either real or simulated GPUs",
                "Give one of --gpus and --simulate-gpus.",
            )
        if self.cpus is not None and self.cpus < 1:
            raise InvalidInput(f"--cpus is {self.cpus}", "A node needs 1 CPU or more.")
        for option, value in (("--gpus", self.gpus), ("--simulate-gpus", self.simulate_gpus)):
            if value is not None and value < 0:
                raise InvalidInput(f"{option} is {value}", "The least is 0.")
        if self.ports is not None and not 1024 <= self.ports <= 65436:
            raise InvalidInput(
                f"--ports is {self.ports}",
                "Give the first of a hundred free ports, from 1024 to 65436.",
            )
        if self.head is not None:
            host_and_port(self.head)
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise InvalidInput(
                f"'{self.name}' cannot be a node's name",
                "Use up to 63 letters, digits, '-', '_' and '.', a letter or digit at both ends.",
            )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Asked:
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")  # what Ray takes as a label


def host_and_port(text: str) -> tuple[str, int]:
    """The parts of "host:port". Raises InvalidInput."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidInput(
            f"'{text}' is not the address of a head",
            "Give HOST:PORT, as `qd up --listen` printed it.",
        )
    return host, int(port)


@dataclass(frozen=True, slots=True)
class Size:
    """What the one node of the cluster offers."""

    cpus: int
    gpus: int
    simulated: bool

    def __str__(self) -> str:
        gpus = f"{self.gpus} {'GPU' if self.gpus == 1 else 'GPUs'}"
        cpus = f"{self.cpus} {'CPU' if self.cpus == 1 else 'CPUs'}"
        return f"{cpus}, {gpus}{' (sim)' if self.simulated and self.gpus else ''}"


def size(asked: Asked, cpus_here: int, gpus_here: int) -> Size:
    """The size of a cluster that starts now.

    Raises InvalidInput when more real GPUs are asked for than the machine has.
    """
    cpus = cpus_here if asked.cpus is None else asked.cpus
    if asked.simulate_gpus is not None:
        return Size(cpus, asked.simulate_gpus, simulated=True)
    if asked.gpus is not None and asked.gpus > gpus_here:
        raise InvalidInput(
            f"--gpus is {asked.gpus}, and this machine has {gpus_here}",
            "Ask for fewer, or use --simulate-gpus to try things out.",
        )
    return Size(cpus, gpus_here if asked.gpus is None else asked.gpus, simulated=False)


def check_fits(asked: Asked, before: Asked, running: Size) -> None:
    """Raises Conflict when what runs is not what is asked for.

    Args:
        before: what the running node was started with.
        running: what it came to.
    """
    if (asked.head is None) != (before.head is None):
        what = f"is a worker of {before.head}" if before.head else "runs a cluster of its own"
        raise Conflict(f"this machine {what}", f"Run `{_ender(before)}` first.", head=before.head)
    fits = (
        asked.cpus in (None, running.cpus)
        and (asked.gpus is None or (asked.gpus == running.gpus and not running.simulated))
        and (
            asked.simulate_gpus is None
            or (asked.simulate_gpus == running.gpus and running.simulated)
        )
    )
    if not fits:
        raise Conflict(
            f"{'a worker' if before.head else 'a cluster'} of another size is running: {running}",
            f"Run `{_ender(before)}` first, or the same command without numbers to keep this one.",
            cpus=running.cpus,
            gpus=running.gpus,
            simulated=running.simulated,
        )
    for option, wanted, had in (
        ("address", asked.address, before.address),
        ("head", asked.head, before.head),
        ("name", asked.name, before.name),
        ("first port", asked.ports, before.ports),
    ):
        if wanted not in (None, had):
            raise Conflict(
                f"this node runs with another {option}: {had or 'the default'}, not {wanted}",
                f"Run `{_ender(before)}` first.",
            )


def _ender(before: Asked) -> str:
    return "qd leave" if before.head else "qd down"
