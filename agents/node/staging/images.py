"""Container images: what this node has podman for, and which image a name means.

An image stays where podman keeps it (its owner's storage); what a job gets is pinned by its digest, so that
a tag that moves on meanwhile changes nothing for the job's other nodes and attempts.
"""

from __future__ import annotations

import asyncio
import functools
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.base.errors import Conflict, InvalidInput, NotFound
from jobs.base.words import listed

RUNTIME = "crun"
"""The one that can leave a container in the control group of its ranks."""
_GROUPS = Path("/sys/fs/cgroup")
_SPECS = (Path("/etc/cdi"), Path("/var/run/cdi"))
_ASKED = 60.0
"""Seconds for podman to answer about an image that it has. A busy disk takes some; a registry has longer."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that this node has. `id` names it here, `digest` ("sha256:...") everywhere; `env` are the
    variables that it sets."""

    id: str
    digest: str
    env: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@functools.lru_cache(maxsize=4)
def _version(program: str, changed: float) -> str:
    try:
        found = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"podman {found.stdout.split()[-1]}" if found.stdout.split() else ""


def available() -> str:
    """What runs containers on this node ("podman 4.3.1"), empty where nothing can."""
    program = shutil.which("podman")
    if program is None or why_not():
        return ""
    return _version(program, Path(program).stat().st_mtime)


def why_not() -> str:
    """Why this node can run no container, in words; empty when it can."""
    missing = [name for name in ("podman", RUNTIME) if shutil.which(name) is None]
    if missing:
        return f"has no {' and no '.join(missing)} (`apt-get install podman {RUNTIME}` there)"
    try:
        both = (_GROUPS / "unified/cgroup.controllers").read_text().strip()
    except OSError:
        return ""
    words = f"has control groups of both versions, which {RUNTIME} cannot use"
    return f"{words} (boot it with systemd.unified_cgroup_hierarchy=1)" if both else ""


def gpus_known(specs: tuple[Path, ...] = _SPECS) -> bool:
    """Whether a CDI specification says what a container needs for this node's NVIDIA GPUs."""
    for folder in specs:
        for file in (*folder.glob("*.yaml"), *folder.glob("*.json")):
            try:
                if "nvidia.com/gpu" in file.read_text():
                    return True
            except OSError:
                continue
    return False


async def ensure(
    ref: str, digest: str, environ: Mapping[str, str], progress: Callable[[str], None]
) -> Image:
    """The image, pulled if this node does not have it.

    Args:
        ref: its name, as the job has it.
        digest: the one that the job runs with, empty while none was found yet.
        environ: environment of podman.
        progress: told what is being done, in words.

    Raises InvalidInput when there is no such image, Conflict when this node cannot run any.
    """
    if why := why_not():
        raise Conflict(f"image {ref}: this node {why}")
    name = pinned(ref, digest)
    try:
        return await _inspect(name, environ)
    except NotFound:
        progress(f"pulling {name}")
    code, _, said = await _podman(["pull", "--quiet", name], environ, None)
    if code:
        raise InvalidInput(
            f"image {name}: this node does not have it ({await _there(environ)}), and podman cannot "
            f"pull it: {reason(said)}"
        )
    return await _inspect(name, environ)


async def _there(environ: Mapping[str, str]) -> str:
    """The images that this node has, in words."""
    listing = ["images", "--filter", "dangling=false", "--format", "{{.Repository}}:{{.Tag}}"]
    code, out, _ = await _podman(listing, environ, _ASKED)
    names = sorted(set(out.split())) if code == 0 else []
    return f"it has {listed(names)}" if names else "it has none"


def pinned(ref: str, digest: str) -> str:
    """The name under which podman finds exactly this image: a tag may have moved on."""
    if not digest or "@" in ref:
        return ref
    folder, slash, last = ref.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}@{digest}"


def reason(said: str) -> str:
    """The line of podman's that tells why, without its own prefixes."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error:")]
    line = (errors or lines or ["podman said nothing"])[-1].removeprefix("Error:").strip()
    return line if len(line) <= 300 else f"{line[:300]}..."


async def _inspect(name: str, environ: Mapping[str, str]) -> Image:
    """Raises NotFound when this node does not have it."""
    code, out, said = await _podman(["image", "inspect", name], environ, _ASKED)
    if code:
        if "image not known" in said or "no such image" in said.lower():
            raise NotFound(f"there is no image {name} here")
        raise Conflict(f"image {name}: podman cannot look at it: {reason(said)}")
    return read_image(json.loads(out)[0])


def read_image(found: Mapping[str, Any]) -> Image:
    """An image from what `podman image inspect` tells of it."""
    settings = found.get("Config") or {}
    env = dict(item.split("=", 1) for item in settings.get("Env") or () if "=" in item)
    return Image(found["Id"], found["Digest"], env)


async def _podman(
    arguments: list[str], environ: Mapping[str, str], patience: float | None
) -> tuple[int, str, str]:
    """Its exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        "podman",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environ),
    )
    try:
        async with asyncio.timeout(patience):
            out, said = await process.communicate()
    except TimeoutError:
        raise Conflict(f"podman gave no answer for {patience:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(errors="replace"), said.decode(errors="replace")
