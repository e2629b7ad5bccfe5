"""The guard: one small process per gang and node, which starts the local ranks and outlives us all.

    python -I -S guard.py DESCRIPTOR    (the fork server, from which guards are forked: `forkserver.py`)

Standard library only (and the modules beside it that it imports), so that neither an upgrade nor a broken
environment can hurt a running gang. It talks to the agent through files alone, all in the attempt's folder:

    reads    launch.json    what to run (agent)          lease      moment on CLOCK_BOOTTIME (agent)
             secrets.json   removed once read (agent)    stop.json  a stop request (agent, then SIGTERM)
             refused.json   a stop came first (agent)
    writes   guard.lock     locked while the guard lives
             started        made once, before any rank: a second guard for this folder never starts one
             handle.json    pid and start time of the guard, and its cgroup
             state.json     phase and ranks, rewritten when a rank starts or ends
             exit.json      the same, final
             stop           the flag that ranks see as should_stop()
             rank-N.log     both streams of rank N, appended to by the rank itself
             tracking.*     what the ranks' MLflow clients sent, and the log of the tracker that took it

Nothing is synced to disk before the end is: what the power cut would take with it are processes, too, and
an attempt of an earlier boot is never begun (`attempts.look`).

A hint (one datagram) wakes the agent when something changed; losing it costs a moment, no more.
"""

# pathlib would add a fifth to a guard's memory.
# ruff: noqa: PTH100, PTH106, PTH108, PTH110, PTH123, PTH208

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
import warnings  # noqa: F401 - for os.execvpe, which would load it in each rank

if __name__ == "__main__":  # isolated mode knows no folder but the standard library's
    sys.path.append(os.path.abspath(__file__ + "/../../../.."))

from agents.node.guard import cgroups, containers, memlimit, records, scope
from agents.node.guard.ranks import Rank, become_rank, reset_priority
from agents.node.guard.records import boot_clock, read_json, write_file
from agents.node.guard.tracking import Tracking

TYPE_CHECKING = False  # the real one would load `typing`
if TYPE_CHECKING:
    from typing import Any

TICK = 1.0
"""Seconds between two looks at the lease and at a stop request whose signal was lost."""
SOON = 0.1
"""The same while podman starts a rank's container: then its program is looked for."""
TOGETHER = 0.3
"""Seconds within which a signal that is sent to a whole control group reaches all of it."""
CLIENT_PATIENCE = 5.0
"""Seconds for podman to see that a rank in a container has been killed."""
SHUTDOWN = "the machine shuts down, or somebody stopped the unit"
GUARD_OOM_SCORE = -500
"""When memory runs out, rather a rank goes than the guard that could tell of it."""
_AGENT_SOCKET = "../../agent.sock"  # relative: the kernel allows a socket's path 107 bytes only
_PR_SET_CHILD_SUBREAPER = 36


class Ending:
    """Why and by when the ranks go: SIGTERM at `term_at`, SIGKILL at `kill_at` (boot clock)."""

    __slots__ = ("kill_at", "outcome", "reason", "term_at", "termed")

    def __init__(self, outcome: str, reason: str, term_at: float, kill_at: float) -> None:
        self.outcome, self.reason = outcome, reason
        self.term_at, self.kill_at = term_at, kill_at
        self.termed = False

    def hurry(self, asked: float, grace: float) -> None:
        """A further stop request, made at `asked`, can only bring the end nearer."""
        self.kill_at = min(self.kill_at, max(asked, self.term_at) + grace)


def ending(
    cause: str, reason: str, now: float, *, grace: float, notice: float, listening: bool
) -> Ending:
    """How to end for a cause: failed (a rank did), stopped (asked to) or fenced (the lease is over).

    A fence has no time to give: whoever waits for a lease to run out counts `grace` seconds from
    there, so the notice is taken from those. Times in seconds on the boot clock.
    """
    told = notice if listening else 0.0
    if cause == "failed":
        return Ending(cause, reason, now, now + grace)
    if cause == "fenced":
        return Ending(cause, reason, now + min(told, grace / 2), now + grace)
    return Ending(cause, reason, now + told, now + told + grace)


class Guard:
    """Runs in the attempt's folder. `ready` is written to once the ranks run."""

    def __init__(self, launch: dict[str, Any], ready: int) -> None:
        self.launch, self.ready = launch, ready
        self.ranks = [Rank(spec["rank"], spec["local_rank"]) for spec in launch["ranks"]]
        self.ending: Ending | None = None
        self.first_failed: Rank | None = None
        name = f"qd-{launch['key']}-{os.getpid()}"
        self.cgroup = cgroups.make(name, leave_unit(name))
        self.memory = memlimit.Limit(launch.get("memory"), self.cgroup)
        self.tracking = Tracking(launch, self.cgroup)
        self.keeper = containers.Keeper(launch, self.cgroup)
        self.lease = float(launch["lease_until"])
        self.unsaved = False
        self.waker, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def run(self) -> None:
        pid = os.getpid()
        handle = {"pid": pid, "start_time": records.start_time(pid), "boot_id": records.boot_id()}
        handle |= {"cgroup": self.cgroup, "tag": self.launch["tag"]}
        write_file(records.HANDLE, json.dumps(handle).encode(), durable=False)
        if failure := self._start_ranks():
            self._end("failed", failure, boot_clock())
        self._save()
        self._hint()
        with contextlib.suppress(OSError):  # the agent may be gone by now
            os.write(self.ready, b"1")
        os.close(self.ready)
        told = False
        while self._reap(boot_clock(), told):
            told = self._wait()
        self.tracking.close()
        self.keeper.close()
        self._kill_descendants()
        self._record()
        self._hint()
        with contextlib.suppress(OSError):
            records.sync_file(
                records.EXIT
            )  # only now: nobody has to wait for the disk to hear of it

    def _start_ranks(self) -> str:
        """Start all ranks; why not, in words, when one could not be started."""
        guard, signals = os.getpid(), {signal.SIGCHLD, signal.SIGTERM}
        for rank, spec in zip(self.ranks, self.launch["ranks"], strict=True):
            # Blocked until the child has handlers of its own: ours would write to the guard's pipe.
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
            try:
                pid = cgroups.fork_into(self.cgroup)
                if pid == 0:
                    spec["env"] = {**self.tracking.environment(rank.rank), **spec["env"]}
                    become_rank(spec, self.launch, guard)
            except OSError as error:
                return f"rank {rank.rank} could not be started: {error.strerror}"
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            rank.begun(pid, time.time(), boot_clock())
        return ""

    def _wait(self) -> bool:
        """Until a signal, a deadline or the next look at the lease; whether SIGTERM came."""
        now = boot_clock()
        marks = [self.lease] if self.ending is None else [self.ending.term_at, self.ending.kill_at]
        starting = "container" in self.launch and not all(rank.contained for rank in self.ranks)
        until = min([now + (SOON if starting else TICK), *(mark for mark in marks if mark > now)])
        awaited = self.tracking.awaited(now)
        ready = select.select([self.waker, *awaited], [], [], until - now)[0]
        if awaited and awaited[0] in ready:
            self.tracking.start(now)
        with contextlib.suppress(BlockingIOError):
            return signal.SIGTERM in os.read(self.waker, 4096)
        return False

    def _reap(self, now: float, told: bool) -> bool:
        """Take note of who ended, and do what follows from it; whether a rank is left."""
        ended = False
        with contextlib.suppress(ChildProcessError):
            while (pid_status := os.waitpid(-1, os.WNOHANG))[0]:
                self.tracking.ended(pid_status[0])
                for rank in self.ranks:
                    if rank.alive and rank.client == pid_status[0]:
                        self._find_program(rank)
                        rank.ended(pid_status[1], time.time(), now)
                        ended = True
                        if pid_status[1] and not self.ending and not self.first_failed:
                            self.first_failed = rank
        for rank in self.ranks:
            ended |= self._find_program(rank)
        alive = any(rank.alive for rank in self.ranks)
        self._consider(now, told, alive)
        left = alive or self._in_grace(now)
        if left and (ended or self.unsaved):  # else the final record follows at once
            self._save()
            self._hint()
        return left

    def _in_grace(self, now: float) -> bool:
        """Whether something that was told to end may still do so. A rank is often a shell, which dies
        of the signal at once, around a program that saves a checkpoint first."""
        if self.ending is None or not self.ending.termed or now >= self.ending.kill_at:
            return False
        for rank in self.ranks:
            if rank.termed and rank.pid is not None:
                with contextlib.suppress(OSError):  # its group is empty
                    os.killpg(rank.pid, 0)
                    return True
        return False

    def _consider(self, now: float, told: bool, alive: bool) -> None:
        """Begin to end if there is a cause, and take the step that is due."""
        stop = records.stop_request(records.STOP)
        if self.ending is None:
            if self.first_failed is not None:
                if self.first_failed.signal == signal.SIGTERM and (told or self._told_too()):
                    self.first_failed = None
                    self._end(
                        "stopped", f"SIGTERM came to guard and ranks at once: {SHUTDOWN}", now
                    )
                else:
                    self._end("failed", self._story(self.first_failed), now)
            elif not alive:  # all done: nothing is left to be stopped
                return
            elif stop is not None:
                self._end("stopped", str(stop["reason"]), now, float(stop["grace"]))
            elif told:
                self._end("stopped", "somebody sent SIGTERM to the guard", now)
            elif now >= self._read_lease():
                self._end("fenced", "the lease ran out", now)
            else:
                self._weigh(now)
        elif stop is not None:
            self.ending.hurry(float(stop["at"]), float(stop["grace"]))
        if self.ending is None:
            return
        if now >= self.ending.term_at and not self.ending.termed:
            self.ending.termed = True
            for rank in self.ranks:
                rank.termed = rank.alive
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a rank that is stopped could not act on it
        if now >= self.ending.kill_at:
            late = now >= self.ending.kill_at + CLIENT_PATIENCE
            self._signal(signal.SIGKILL, to_client=late)

    def _told_too(self) -> bool:
        """Whether SIGTERM comes to the guard as well, right after it ended a rank. A machine that shuts
        down, and whoever stops a unit, sends it to one process after the other: no failure of the rank's."""
        until = boot_clock() + TOGETHER
        while (left := until - boot_clock()) > 0:
            if select.select([self.waker], [], [], left)[0] and signal.SIGTERM in os.read(
                self.waker, 4096
            ):
                return True
        return False

    def _weigh(self, now: float) -> None:
        """End the gang when its ranks hold more memory than they may."""
        ranks = {rank.pid: rank for rank in self.ranks if rank.alive and rank.pid is not None}
        passed = self.memory.passed(ranks, now)
        if passed is not None:
            self.first_failed = ranks[passed[0]]
            text = f"rank {self.first_failed.rank} ran out of memory: {passed[1]}"
            self._end("failed", text, now)

    def _story(self, rank: Rank) -> str:
        if "container" in self.launch and not rank.contained:
            words = f"did not start (exit code {rank.exit_code}); its log says why"
            return f"rank {rank.rank}'s container {words}"
        why = self.memory.story() if rank.signal == signal.SIGKILL else ""
        return f"rank {rank.rank} ran out of memory: {why}" if why else rank.story()

    def _end(self, cause: str, reason: str, now: float, grace: float | None = None) -> None:
        own = self.launch.get("own", ".")
        listening = any(os.path.exists(f"{own}/listening-{rank.rank}") for rank in self.ranks)
        self.ending = ending(
            cause,
            reason,
            now,
            grace=self.launch["grace"] if grace is None else grace,
            notice=self.launch["notice"],
            listening=listening,
        )
        with contextlib.suppress(OSError):  # a full disk must not keep us from stopping
            write_file(records.STOP_FLAG, b"", durable=False, mode=0o644)
        self._save()
        self._hint()

    def _read_lease(self) -> float:
        with contextlib.suppress(OSError, ValueError), open(records.LEASE) as file:
            self.lease = max(self.lease, float(file.read()))
        return self.lease

    def _find_program(self, rank: Rank) -> bool:
        container = self.launch.get("container")
        return container is not None and rank.find_program(container)

    def _signal(self, number: int, *, to_client: bool = False) -> None:
        """To the process group of each rank that is not reaped (so its pid cannot be another's)."""
        for rank in self.ranks:
            if rank.alive:
                rank.send(number, to_client=to_client)

    def _kill_descendants(self) -> None:
        """What the ranks left behind is our child by now, for we are its reaper, or below such a one:
        without children there is nothing, and that is quickly seen."""
        pause = 0.001
        while self._has_children():
            if pause == 0.001:  # it may take long, and how the ranks ended is known
                self._save()
                self._hint()
            records.kill_left_over(self.launch["tag"], self.cgroup)
            self._kill_children()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(pause)
            pause = min(pause * 2, 0.5)  # what the kernel holds on to may take long
        if self.cgroup:
            with contextlib.suppress(OSError):
                os.rmdir(self.cgroup)

    def _has_children(self) -> bool:
        """Zombies counted: they are reaped next."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def _kill_children(self) -> None:
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
                if parent == os.getpid():
                    os.kill(int(name), signal.SIGKILL)

    def _summary(self) -> dict[str, Any]:
        first = self.first_failed
        return {
            "phase": "stopping" if self.ending else "running",
            "outcome": self.ending.outcome if self.ending else "",
            "reason": self.ending.reason if self.ending else "",
            "first_failed": first.rank if first else None,
            "first_failed_at": first.ended_at if first else None,
            "ranks": [rank.to_json() for rank in self.ranks],
        }

    def _save(self) -> None:
        """Record where we are. With a full disk it is tried again at the next tick."""
        try:
            write_file(records.STATE, json.dumps(self._summary()).encode(), durable=False)
            self.unsaved = False
        except OSError as error:
            self.unsaved = True
            complain(f"cannot record the state: {error}")

    def _record(self) -> None:
        """Write the final record; without room for it, wait for room: nobody else knows the end."""
        record = {**self._summary(), "phase": "ended"}
        record["outcome"] = record["outcome"] or "done"
        while os.path.exists(records.LAUNCH):  # the folder may be removed under us
            try:
                return write_file(records.EXIT, json.dumps(record).encode(), durable=False)
            except OSError as error:
                complain(f"cannot record the end: {error}")
                time.sleep(TICK)
        return None

    def _hint(self) -> None:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
        ):
            sender.sendto(self.launch["key"].encode(), _AGENT_SOCKET)


def leave_unit(name: str) -> str | None:
    """Leave the service that started us, where there is one; the cgroup for the ranks' own."""
    try:
        return scope.leave(name, os.environ)
    except OSError as error:
        complain(f"this guard remains in the unit that started it: {error}")
        return None


def complain(text: str) -> None:
    """A line in the guard's own log, which lies on the disk that may be the reason."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())


def begin(ready: int) -> None:
    """Be the one guard of the folder we are in, or leave it alone."""
    lock = os.open(records.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(os.open(records.STARTED, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except (BlockingIOError, PermissionError, FileExistsError):
        return  # another guard is or was here
    # Looked at after STARTED is made, as the agent looks for STARTED after it made this: one sees the other.
    if os.path.exists(records.REFUSED):
        return
    launch = read_json(records.LAUNCH)
    if launch is None:
        raise SystemExit("launch.json is not there or not whole")
    launch["env"].update(read_json(records.SECRETS) or {})
    with contextlib.suppress(OSError):
        os.unlink(records.SECRETS)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    reset_priority(GUARD_OOM_SCORE)
    Guard(launch, ready).run()


def nurse(descriptor: int) -> None:
    """Fork a guard for each request, until the agent at the socket's other end is gone.

    A request is a folder with two descriptors: the pipe that is told when the ranks run (`!` and an
    error's number when there will be no guard), and the guard's log.
    """
    with socket.socket(fileno=descriptor) as requests:
        while True:
            folder, passed, _, _ = socket.recv_fds(requests, 4096, 2, socket.MSG_CMSG_CLOEXEC)
            if not folder:
                return
            ready, log = passed
            try:
                if _fork_away():
                    break
            except OSError as error:
                os.write(ready, f"!{error.errno}".encode())
            os.close(ready)
            os.close(log)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.setsid()
    os.chdir(folder)
    begin(ready)
    os._exit(0)  # all is written; to take an interpreter down properly takes longer than the rest


def _fork_away() -> bool:
    """Fork twice, so that the guard is nobody's child; true in the guard. Raises OSError."""
    if child := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            raise OSError(abs(code), "cannot fork")
        return False
    try:
        if os.fork() == 0:
            return True
        code = 0
    except OSError as error:
        code = error.errno or 1
    os._exit(code)


if __name__ == "__main__":
    nurse(int(sys.argv[1]))
