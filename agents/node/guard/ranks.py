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

TYPE_CHECKING = False  # the real one would load `typing`
if TYPE_CHECKING:
    from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_PTRACER = 1, 0x59616D61
_PTRACER_ANY = ctypes.c_ulong(-1)


class Rank:
    """A rank and what became of it."""

    _TOLD = ("ended_at", "exit_code", "local_rank", "pid", "rank", "signal", "started_at")
    _CLOCKED = ("began", "ran")  # on CLOCK_BOOTTIME: when it began, and for how many seconds it ran
    __slots__ = (*_TOLD, *_CLOCKED, "termed")

    def __init__(self, rank: int, local_rank: int) -> None:
        self.rank, self.local_rank = rank, local_rank
        self.pid: int | None = None
        self.started_at: float | None = None
        self.began: float | None = None
        self.ran: float | None = None
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.ended_at: float | None = None
        self.termed = False  # its process group was sent SIGTERM

    @property
    def alive(self) -> bool:
        return self.pid is not None and self.ended_at is None

    def ended(self, status: int, at: float, clock: float) -> None:
        """Take note of a wait status; `clock` is the same moment as `at`, on CLOCK_BOOTTIME."""
        if os.WIFSIGNALED(status):
            self.signal = os.WTERMSIG(status)
        else:
            self.exit_code = os.WEXITSTATUS(status)
        self.ended_at = at
        self.ran = None if self.began is None else max(0.0, clock - self.began)

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
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.closerange(3, 65536)
        os.setsid()
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:  # it died before that rule held
            os._exit(1)
        # Yama lets only ancestors look into a process, and the agent, whose py-spy looks, is none.
        libc.prctl(_PR_SET_PTRACER, _PTRACER_ANY, 0, 0, 0)
        reset_priority(0)
        os.umask(0o022)
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chdir(launch["work"])
        environment = {**launch["env"], **spec["env"]}
        os.execvpe(spec["argv"][0], spec["argv"], environment)  # noqa: S606
    except (OSError, ValueError) as error:
        code = 126 if isinstance(error, PermissionError) else 127
        words = error.strerror if isinstance(error, OSError) else str(error)
        os.write(2, f"quarterdeck: cannot start {spec['argv'][0]!r}: {words}\n".encode())
    finally:
        os._exit(code)


def reset_priority(oom_score: int) -> None:
    """Undo what Ray puts on its children: niceness 15 and first choice of the out-of-memory killer."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    for score in (0, oom_score):  # 0 first: going below needs a right that we may lack
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
