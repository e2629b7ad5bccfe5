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
from dataclasses import asdict, dataclass

from agents.supervisor import head, teardown
from agents.supervisor import record as records
from agents.supervisor.policy import Asked, Size
from agents.supervisor.process import Identity, sweep
from agents.supervisor.program import Program
from agents.supervisor.record import ClusterRecord
from jobs.places import Places


@dataclass(frozen=True, slots=True)
class Settings:
    """What a cluster is started with.

    `controller` is a Python module, run with `-m`. `umask` is the user's, which ranks get through
    Ray; ours is 077.
    """

    places: Places
    asked: Asked
    size: Size
    node: str
    controller: str
    umask: int
    environ: Mapping[str, str]


class Supervisor:
    """Runs Ray and the controller of one state folder, whose lock the caller holds."""

    def __init__(self, settings: Settings, before: ClusterRecord | None) -> None:
        self.settings = settings
        logs = settings.places.daemon_logs
        self.ray = Program("ray", logs / "ray.log", before["ray"] if before else None)
        self.controller = Program(
            "controller", logs / "controller.log", before["controller"] if before else None
        )
        self._port = int(before["ray_address"].rpartition(":")[2]) if before else None
        self._incarnation = before["ray"]["incarnation"] if before else 0
        self._leaders = records.processes(before) if before else {}
        self._stopping = False
        if before:
            self._adopt(before)

    def _adopt(self, before: ClusterRecord) -> None:
        for program, found in ((self.ray, before["ray"]), (self.controller, before["controller"])):
            process = self._leaders[program.name]
            if process is not None and program.adopt(process, found, time.monotonic()):
                say(f"adopted {program.name}, pid {process.pid}")

    def run(self, ready: int | None = None) -> None:
        """Work until SIGTERM, then take everything down.

        Args:
            ready: a descriptor that gets one byte once both programs were started, then is closed.
        """
        wake, waker = socket.socketpair()
        wake.setblocking(False)
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        while not self._stopping:
            self._start_what_is_due()
            if ready is not None:
                self._write()  # also when all was adopted and nothing had to be started
                os.write(ready, b"!")
                os.close(ready)
                ready = None
            self._wait(wake)
        say("stopping")
        teardown.take_down(self.settings.places, self.record())
        say("stopped")

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _start_what_is_due(self) -> None:
        changed = False
        for program in (self.ray, self.controller):
            now = time.monotonic()
            if program.due is None or program.due > now:
                continue
            changed = True
            try:
                self._start(program, now)
                say(
                    f"started {program.name}, pid {program.process.pid if program.process else '?'}"
                )
            except OSError as error:
                delay = program.failed(now, time.time())
                say(f"cannot start {program.name}: {error}; again in {delay:g} s")
        if changed:
            self._write()

    def _start(self, program: Program, now: float) -> None:
        # What the last one left behind would fight with the new one over files and ports.
        folder = head.folder(self.settings.places) if program is self.ray else None
        left = sweep(self._leaders.get(program.name), folder)
        if left:
            raise OSError(f"processes of the last one will not end: {[e.pid for e in left]}")
        if program is self.ray:
            self._start_ray(now)
        else:
            command = [sys.executable, "-m", self.settings.controller]
            env = head.clean(self.settings.environ) | {"QD_NODE_NAME": self.settings.node}
            program.start(command, env, 0o077, now, time.time())
        self._leaders[program.name] = program.process

    def _start_ray(self, now: float) -> None:
        settings = self.settings
        head.prepare_folder(settings.places)
        head.make_token(settings.places.ray_token)
        self._port = head.free_port(self._port)
        self._incarnation += 1
        self.ray.start(
            head.command(settings.places, settings.node, settings.size, self._port),
            head.environment(settings.environ, settings.places, settings.node, settings.size),
            settings.umask,
            now,
            time.time(),
        )

    def _wait(self, wake: socket.socket) -> None:
        """Sleep until a program ends, one is due or a signal comes, and note who ended."""
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        running = {}
        for program in (self.ray, self.controller):
            if program.descriptor is not None:
                running[program.descriptor] = program
                poller.register(program.descriptor, select.POLLIN)
        due = [p.due for p in (self.ray, self.controller) if p.due is not None]
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
        settings = self.settings
        own = Identity.of(os.getpid())
        assert own is not None, "this process runs"
        return {
            "version": records.VERSION,
            "node": settings.node,
            "asked": asdict(settings.asked),
            "cpus": settings.size.cpus,
            "gpus": settings.size.gpus,
            "simulated": settings.size.simulated,
            "supervisor": own.to_json(),
            "ray_address": f"127.0.0.1:{self._port or 0}",
            "ray": {
                **self.ray.to_json(),
                "incarnation": self._incarnation,
            },
            "controller": self.controller.to_json(),
        }

    def _write(self) -> None:
        try:
            records.write(self.settings.places.cluster_file, self.record())
        except OSError as error:  # a full disk must not end what it only describes
            say(f"cannot write {self.settings.places.cluster_file}: {error}")


def say(text: str) -> None:
    """A line in the supervisor's log, which is its stderr."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sys.stderr.write(f"{at} {text}\n")
    sys.stderr.flush()
