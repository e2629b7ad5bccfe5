"""A rank as its guard sees it: how a fresh child becomes one, and what became of it.

Part of the guard: standard library only, and no module that the guard does not hold anyway.
"""

# pathlib would add a fifth to a guard's memory.
# ruff: noqa: PTH123

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

from agents.node.guard import containers, records, rights

TYPE_CHECKING = False  # the real one would load `typing`
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_PTRACER = 1, 0x59616D61
_PTRACER_ANY = ctypes.c_ulong(-1)


class Rank:
    """A rank and what became of it."""

    _TOLD = ("ended_at", "exit_code", "local_rank", "pid", "rank", "signal", "started_at")
    _CLOCKED = ("began", "ran")  # on CLOCK_BOOTTIME: when it began, and for how many seconds it ran
    __slots__ = (*_TOLD, *_CLOCKED, "client", "program_started", "termed")

    def __init__(self, rank: int, local_rank: int) -> None:
        self.rank, self.local_rank = rank, local_rank
        self.pid: int | None = None  # of its program
        self.client: int | None = None  # our child: the same, or the client of its container
        self.program_started: int | None = None  # with the pid it names a program in a container
        self.started_at: float | None = None
        self.began: float | None = None
        self.ran: float | None = None
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.ended_at: float | None = None
        self.termed = False  # its process group was sent SIGTERM

    def begun(self, pid: int, at: float, clock: float) -> None:
        """Take note of its process; `clock` is the same moment as `at`, on CLOCK_BOOTTIME."""
        self.pid = self.client = pid
        self.started_at, self.began = at, clock

    @property
    def alive(self) -> bool:
        return self.client is not None and self.ended_at is None

    def ended(self, status: int, at: float, clock: float) -> None:
        """Take note of a wait status; `clock` is the same moment as `at`, on CLOCK_BOOTTIME. podman's says
        by 128 and more which signal its program died of."""
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            self.signal = -code
        elif self.contained and code - 128 in signal.valid_signals():
            self.signal = code - 128
        else:
            self.exit_code = code
        self.ended_at = at
        self.ran = None if self.began is None else max(0.0, clock - self.began)

    @property
    def contained(self) -> bool:
        """Whether its program was seen to run in a container."""
        return self.program_started is not None

    def find_program(self, container: Mapping[str, Any]) -> bool:
        """Look for what its container runs; whether that is new."""
        if self.contained or not self.alive:
            return False
        pid = containers.program_of(container, self.rank)
        if pid is None:
            return False
        # It may have ended already: then it has none, and is sent no signal.
        self.pid, self.program_started = pid, records.start_time(pid) or 0
        return True

    def send(self, number: int, *, to_client: bool) -> None:
        """A signal to its process group. What runs in a container is the leader of one as well; podman's
        client is spared, which is there to see how it ends.

        Args:
            to_client: the program had its time, and the client is to go too.
        """
        with contextlib.suppress(OSError):
            if self.contained:
                assert self.pid is not None
                if records.start_time(self.pid) == self.program_started:
                    os.killpg(self.pid, number)
                if not to_client:
                    return
            assert self.client is not None
            os.killpg(self.client, number)

    def story(self) -> str:
        if self.signal is not None:
            return f"rank {self.rank} was killed by {signal_name(self.signal)}"
        return f"rank {self.rank} ended with exit code {self.exit_code}"

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*self._TOLD, *self._CLOCKED)}


def signal_name(number: int) -> str:
    """As `jobs.base.signals`, which is none of the guard's modules. 35 to 63 have no name of their own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        first = signal.SIGRTMIN
        return f"SIGRTMIN+{number - first}" if number > first else f"SIG{number}"


def become_rank(spec: dict[str, Any], launch: dict[str, Any], guard: int) -> None:
    """Turn this fresh child of `guard` into a rank. Never returns; a failure goes to the rank's log."""
    code = 127
    try:
        log = os.open(f"rank-{spec['rank']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        who = launch.get("as")
        if who is not None:  # so that a program may open /dev/stderr
            os.fchown(log, who["uid"], who["gid"])
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.closerange(3, 65536)
        os.setsid()
        reset_priority(0)
        rights.become(who)
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:  # it died before that rule held
            os._exit(1)
        # Yama lets only ancestors look into a process, and the agent, whose py-spy looks, is none.
        libc.prctl(_PR_SET_PTRACER, _PTRACER_ANY, 0, 0, 0)
        os.umask(0o022)
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chdir(launch["work"])
        argv, environment = spec["argv"], {**launch["env"], **spec["env"]}
        if "container" in launch:
            argv, environment = containers.command(launch, spec["rank"], argv, environment)
        os.execvpe(argv[0], argv, environment)  # noqa: S606
    except (OSError, ValueError) as error:
        code = 126 if isinstance(error, PermissionError) else 127
        words = error.strerror if isinstance(error, OSError) else str(error)
        program = "podman" if "container" in launch else spec["argv"][0]
        os.write(2, f"quarterdeck: cannot start {program!r}: {words}\n".encode())
    finally:
        os._exit(code)


def reset_priority(oom_score: int) -> None:
    """Undo what Ray puts on its children: niceness 15 and first choice of the out-of-memory killer."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    for score in (0, oom_score):  # 0 first: going below needs a right that we may lack
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
