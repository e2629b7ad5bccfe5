"""`qd doctor`: checks that work with or without a control plane."""

from __future__ import annotations

import os
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from console.cli.format import size
from console.cli.options import Json
from console.cli.output import emit, paint, say
from console.client import Client
from console.text import neutralise, pad, width
from jobs.base.errors import QuarterdeckError
from jobs.base.places import Places, places

if TYPE_CHECKING:
    from console.remote.target import Target
    from jobs.wire.views import CheckView, StatusView

LEAST_DISK = 2 << 30
"""Bytes free below which snapshots, logs and Ray's own files soon fill the disk."""

LEAST_SHM = 256 << 20
"""Bytes: Ray's object store and NCCL or gloo both live in /dev/shm; a container's default is 64 MiB."""


def doctor(as_json: Json = False) -> None:
    """Check every part, and say how to fix what is wrong.

    The exit code is 0 when every check passes, and 1 otherwise.
    """
    client = Client.from_environment()
    if client.remote is None:
        here = local_checks(places(), time.time())
    else:  # the rest of this machine has no part in that cluster
        here = [_python(), _ssh(client, client.remote)]
    checks = [*here, *control_plane_checks(client)]
    if as_json:
        emit(checks)
    else:
        room = max(width(check["name"]) for check in checks)
        for check in checks:
            mark = paint("ok  ", "green") if check["ok"] else paint("FAIL", "red")
            say(f"{mark}  {pad(neutralise(check['name']), room)}  {neutralise(check['detail'])}")
            if not check["ok"]:
                say(f"      {' ' * room}  fix: {neutralise(check['fix'])}")
    raise typer.Exit(0 if all(check["ok"] for check in checks) else 1)


def local_checks(where: Places, now: float) -> list[CheckView]:
    """What this machine can tell by itself. `now` is seconds since the epoch."""
    return [
        _python(),
        _ray(),
        _room("disk", _existing(where.state), LEAST_DISK, "Free some space, or set QD_HOME."),
        _room(
            "shared memory",
            Path("/dev/shm"),  # noqa: S108 - looked at, not written to
            LEAST_SHM,
            "Enlarge /dev/shm: `mount -o remount,size=2G /dev/shm`, or `docker run --shm-size=2g`.",
        ),
        _driver(),
        _clock(now),
    ]


def control_plane_checks(client: Client) -> list[CheckView]:
    """Whether the controller answers; when it does, also what it has checked."""
    try:
        status = cast("StatusView", client.get("/v1/status"))
        told = cast("list[CheckView]", client.get("/v1/doctor"))
    except QuarterdeckError as error:
        where = client.remote.words if client.remote else client.socket
        return [_check("control plane", False, f"{error.message} ({where})", error.hint)]
    ours, theirs = version("quarterdeck"), status["version"]
    same = _check(
        "control plane",
        ours == theirs,
        f"answers, version {theirs}" if ours == theirs else f"version {theirs}, this is {ours}",
        "Restart it with the version installed here: `qd down`, then `qd up`.",
    )
    return [same, *told]


def _ssh(client: Client, target: Target) -> CheckView:
    """Whether the head is reached, as whom, and how far it is."""
    try:
        client.get("/v1/status")
        began = time.monotonic()
        client.get("/v1/status")
    except QuarterdeckError as error:
        return _check("ssh", False, f"{target.words}: {error.message}", error.hint)
    told = client.link.told if client.link else {}
    took = time.monotonic() - began
    words = f"{target.words}, as {told.get('account')}, {told.get('way')}, {took * 1e3:.0f} ms"
    return _check("ssh", True, words, "")


def _check(name: str, ok: bool, detail: str, fix: str) -> CheckView:
    return {"name": name, "ok": ok, "detail": detail, "fix": "" if ok else fix}


def _python() -> CheckView:
    found = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    return _check("python", ok, found, "Install Quarterdeck with Python 3.11 or newer.")


def _ray() -> CheckView:
    try:
        return _check("ray", True, version("ray"), "")
    except PackageNotFoundError:
        fix = "To run a cluster here: `pip install 'quarterdeck[cluster]'`."
        return _check("ray", False, "not installed", fix)


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _room(name: str, folder: Path, least: int, fix: str) -> CheckView:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return _check(name, False, f"{folder}: {error.strerror}", fix)
    if not os.access(folder, os.W_OK):
        return _check(name, False, f"{folder} is not writable", f"Make {folder} writable.")
    return _check(name, free >= least, f"{size(free)} free in {folder}", fix)


def _driver() -> CheckView:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(errors="replace")
    except OSError:
        if not Path("/dev/nvidiactl").exists():
            return _check("gpu driver", True, "none; `qd up --simulate-gpus N` plays GPUs", "")
        text = "the devices are there, the driver's version is not to be read"
    words = text.split("\n", 1)[0].removeprefix("NVRM version:").split()
    return _check("gpu driver", True, " ".join(words), "")


def _clock(now: float) -> CheckView:
    # Files of this installation cannot come from the future.
    installed = Path(__file__).stat().st_mtime
    return _check(
        "clock",
        now >= installed - 60,
        time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
        "The clock is behind: synchronise it (`timedatectl set-ntp true`).",
    )
