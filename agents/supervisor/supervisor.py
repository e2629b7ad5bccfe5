"""The supervisor's loop: wait for a death or a signal, restart what died, write down what runs."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from agents.supervisor import head, network, solo, teardown, tls
from agents.supervisor import record as records
from agents.supervisor.notify import Notifier
from agents.supervisor.policy import Asked, Size
from agents.supervisor.process import Identity, stop, sweep
from agents.supervisor.program import Program
from agents.supervisor.pulse import SILENCE, Pulse, answers
from agents.supervisor.rayfolder import RayFolder
from agents.supervisor.record import ClusterRecord
from jobs.base import python
from jobs.base.places import Places

HEAD_AGAIN = 1.0
"""Seconds between two looks of a worker at a head that is away. A look is one TCP connection."""
WRITE_AGAIN = 1.0
"""Seconds between two tries to write down what runs."""
READY_AGAIN = 0.2
"""Seconds between two looks at a controller that a service manager waits for."""
TAKEDOWN = 60.0
"""Seconds that the end may take: about 35 are the parts' own."""


class HeadAway(OSError):
    """The head to join does not answer: nothing of ours has failed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node is started with.

    `controller` is a Python module, run with `-m`; a worker (`asked.head`) has none. `address` is
    where the node listens. `umask` is the user's, which ranks get through Ray; ours is 077.
    """

    places: Places
    asked: Asked
    size: Size
    node: str
    address: str
    controller: str
    umask: int
    environ: Mapping[str, str]


class Supervisor:
    """Runs Ray and, on a head, the controller of one state folder, whose lock the caller holds."""

    def __init__(
        self, settings: Settings, before: ClusterRecord | None, notifier: Notifier | None = None
    ) -> None:
        self.settings = settings
        self._notifier = notifier or Notifier({})
        found = records.programs(before) if before else {}
        names = ("ray",) if settings.asked.head else ("ray", "controller")
        self.programs = {
            name: Program(name, settings.places.daemon_logs / f"{name}.log", found.get(name))
            for name in names
        }
        self.ray = self.programs["ray"]
        self._port = int(before["ray_address"].rpartition(":")[2]) if before else None
        self._incarnation = before["ray"]["incarnation"] if before else 0
        self._leaders = solo.known(settings.places, before)
        self._unwritten = False
        self._stopping = False
        self.controller = self.programs.get("controller")
        self.pulse = Pulse(lambda: answers(settings.places.socket))
        self.folder = RayFolder(settings.places.ray_temp, head.folder(settings.places))
        if before:
            self._adopt(before)

    def _adopt(self, before: ClusterRecord) -> None:
        found = records.programs(before)
        for name, program in self.programs.items():
            process = self._leaders.get(name)
            if process is not None and program.adopt(process, found[name], time.monotonic()):
                say(f"adopted {name}, pid {process.pid}")
                self.pulse.started(time.monotonic())
                self.folder.started(time.monotonic())

    def run(self, ready: int | None = None) -> None:
        """Work until SIGTERM, then take everything down.

        Args:
            ready: a descriptor that gets one byte once the programs were started, or tried, then is closed.
        """
        wake, waker = socket.socketpair()
        wake.setblocking(False)
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._forget_last_words()
        while not self._stopping:
            self._start_what_is_due()
            if ready is not None:
                self._write()  # also when all was adopted and nothing had to be started
                os.write(ready, b"!")
                os.close(ready)
                ready = None
            self._notify()
            self._wait(wake)
            self._end_what_hangs()
            self._end_ray_without_folder()
        say("stopping")
        self._notifier.stopping(TAKEDOWN)
        teardown.take_down(self.settings.places, self.record())
        self._forget_last_words()
        say("stopped")

    def _forget_last_words(self) -> None:
        """What the last controller could not do is no news. A disk that fails is no reason to end."""
        with suppress(OSError):
            self.settings.places.last_words.unlink()

    def _notify(self) -> None:
        """A service is ready once its API answers; a worker, which may have to wait for its head as long
        as that takes, once it has been started."""
        ready = self._notifier.waits_for_ready and (
            self.controller is None or answers(self.settings.places.socket)
        )
        parts = [
            f"{name} runs, pid {program.process.pid}"
            if program.process
            else f"{name} is down: {program.exit}"
            for name, program in self.programs.items()
        ]
        self._notifier.alive(time.monotonic(), ready, "; ".join(parts))

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _start_what_is_due(self) -> None:
        changed = False
        for name, program in self.programs.items():
            now = time.monotonic()
            if program.due is None or program.due > now:
                continue
            try:
                self._start(program, now)
                say(f"started {name}, pid {program.process.pid if program.process else '?'}")
            except HeadAway as error:
                if program.exit != str(error):
                    say(f"{error}; looking again each {HEAD_AGAIN:g} s")
                    program.exit = str(error)
                    changed = True
                program.due = now + HEAD_AGAIN
                continue
            except OSError as error:
                delay = program.failed(now, time.time())
                say(f"cannot start {name}: {error}; again in {delay:g} s")
            changed = True
        if changed or self._unwritten:
            self._write()

    def _start(self, program: Program, now: float) -> None:
        to_join = self.settings.asked.head if program is self.ray else None
        if to_join and not network.answers(to_join):
            raise HeadAway(f"no head answers at {to_join}")
        if to_join and (wrong := tls.disagreement(to_join, tls.check(self.settings.environ))):
            raise HeadAway(wrong)
        # What the last one left behind would fight with the new one over files and ports.
        folder = head.folder(self.settings.places) if program is self.ray else None
        ours = self._leaders.get(program.name)
        stray = solo.known(self.settings.places, None).get(program.name) or ours
        left = [entry for leader in {ours, stray} for entry in sweep(leader, folder)]
        if left:
            raise OSError(f"processes of the last one will not end: {[e.pid for e in left]}")
        if program is self.ray:
            self._start_ray(now)
        else:
            command = python.module(self.settings.controller)
            env = head.clean(self.settings.environ) | {"QD_NODE_NAME": self.settings.node}
            env |= tls.variables(self.settings.environ)  # for its driver
            program.start(command, env, 0o077, now, time.time())
            self.pulse.started(now)
        self._leaders[program.name] = program.process

    def _start_ray(self, now: float) -> None:
        settings = self.settings
        where, node = settings.places, settings.node
        size, address = settings.size, settings.address
        head.prepare_folder(where)
        if settings.asked.head:
            command = head.join_command(
                where, node, size, address, settings.asked.head, settings.asked.ports
            )
        else:
            head.make_token(where.ray_token)
            self._port = settings.asked.ports or head.free_port(self._port, address)
            command = head.command(where, node, size, address, self._port, settings.asked.ports)
        self._incarnation += 1
        env = head.environment(settings.environ, where, node, size, address)
        self.ray.start(command, env, settings.umask, now, time.time())
        self.folder.started(now)

    def _end_what_hangs(self) -> None:
        """Kill a controller that has not answered for long; its end is then seen like any other."""
        program = self.controller
        if program is None or program.process is None:
            return
        if self.pulse.hangs(time.monotonic()):
            say(
                f"controller, pid {program.process.pid}, has not answered for {SILENCE:g} s: killed"
            )
            stop(program.process, 1.0, signal.SIGABRT)  # its faulthandler logs where it hangs

    def _end_ray_without_folder(self) -> None:
        """Ray runs on without its folder, but can start nothing any more: start it anew. Guards and ranks
        are none of its processes, and go on."""
        if self.ray.process is not None and self.folder.gone(time.monotonic()):
            say(f"Ray's session in {self.folder.outer} was removed: Ray is started anew")
            stop(self.ray.process, 1.0)

    def _wait(self, wake: socket.socket) -> None:
        """Sleep until a program ends, one is due or a signal comes, and note who ended."""
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        running = {}
        for program in self.programs.values():
            if program.descriptor is not None:
                running[program.descriptor] = program
                poller.register(program.descriptor, select.POLLIN)
        due = [p.due for p in self.programs.values() if p.due is not None]
        if self.controller is not None and self.controller.process is not None:
            due.append(self.pulse.due)
        if self.ray.process is not None:
            due.append(self.folder.due)
        if self._unwritten:
            due.append(time.monotonic() + WRITE_AGAIN)
        if self._notifier.every is not None:
            due.append(time.monotonic() + self._notifier.every / 2)
        if self._notifier.waits_for_ready:
            due.append(time.monotonic() + READY_AGAIN)
        # A little late rather than early, which would turn the last millisecond into a busy loop.
        seconds = max(0.0, min(due) - time.monotonic()) + 0.001 if due else None
        for descriptor, _ in poller.poll(None if seconds is None else seconds * 1000):
            if descriptor == wake.fileno():
                with suppress(BlockingIOError):
                    wake.recv(4096)
            else:
                program = running[descriptor]
                delay = program.died(time.monotonic(), time.time())
                say(f"{program.name} ended ({program.exit}); again in {delay:g} s")
                program.process = None
                self._write()

    def record(self) -> ClusterRecord:
        settings, controller = self.settings, self.programs.get("controller")
        own = Identity.of(os.getpid())
        assert own is not None, "this process runs"
        return {
            "version": records.VERSION,
            "node": settings.node,
            "address": settings.address,
            "asked": settings.asked.to_json(),
            "cpus": settings.size.cpus,
            "gpus": settings.size.gpus,
            "simulated": settings.size.simulated,
            "supervisor": own.to_json(),
            "ray_address": settings.asked.head or f"{settings.address}:{self._port or 0}",
            "ray": {
                **self.ray.to_json(),
                "incarnation": self._incarnation,
            },
            "controller": controller.to_json() if controller else None,
        }

    def _write(self) -> None:
        try:
            records.write(self.settings.places.cluster_file, self.record())
            self._unwritten = False
        except OSError as error:  # a full disk must not end what it only describes
            if not self._unwritten:
                say(f"cannot write {self.settings.places.cluster_file}: {error}")
            self._unwritten = True


def say(text: str) -> None:
    """A line in the supervisor's log, which is its stderr."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with suppress(OSError):  # a log on a full disk must not end what it only describes
        sys.stderr.write(f"{at} {text}\n")
        sys.stderr.flush()
