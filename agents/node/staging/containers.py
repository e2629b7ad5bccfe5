"""What a rank in a container gets (pure, but for a look at this process's limits).

As without one: the host's network, process ids, shared memory and limits; the work folder, the
checkpoints, the helper and the data at the same paths; the same variables. From the image: all other files,
the variables that it sets, and no entry point. Files that it writes are the agent's user's: a rank is root in
its container, which without privileges is that user outside.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.node.staging import images
from agents.node.staging.environment import WORKER_FOLDER, Node
from agents.node.staging.images import Image
from agents.node.telemetry.simulated import PREFIX
from jobs.base.errors import InvalidInput, NotFound
from jobs.spec.mounts import mount_of
from jobs.wire.messages import LaunchPlan

_PODMANS = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME",
    "XDG_DATA_HOME", "XDG_CACHE_HOME", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF",
    "CONTAINERS_REGISTRIES_CONF", "REGISTRY_AUTH_FILE", "STORAGE_DRIVER", "STORAGE_OPTS",
    "DBUS_SESSION_BUS_ADDRESS", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy",
    "no_proxy",
)  # fmt: skip
"""What podman itself takes from the environment: where images are, and how to reach registries."""

_OF_THE_HOST = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH",
    "HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE", "LANG", "LANGUAGE",
)  # fmt: skip
"""Variables of a node's that name folders and files of its own; in a container they are not there."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_OPTIONS = (
    "--rm",
    "--pull=never",
    "--network=host",
    "--pid=host",  # CUDA shares memory between processes only within one namespace
    "--ipc=host",  # NCCL and data loaders use /dev/shm
    "--uts=host",
    "--cgroups=no-conmon",
    "--pids-limit=-1",
    "--user=0:0",
    "--security-opt=label=disable",  # SELinux would keep it from our folders
    "--log-driver=passthrough",  # nothing between the program and its log
    "--http-proxy=false",  # the job's variables say which
    "--entrypoint=",
)
_LIMITS = {
    "core": resource.RLIMIT_CORE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "nofile": resource.RLIMIT_NOFILE,
    "stack": resource.RLIMIT_STACK,
}


def podman_environment(environ: Mapping[str, str]) -> dict[str, str]:
    env = {name: environ[name] for name in _PODMANS if name in environ}
    env.setdefault("PATH", _PATH)
    return env


def check(plan: LaunchPlan, gpus: list[str]) -> None:
    """See that this node has what the container asks of it, except for the image.

    Args:
        gpus: UUIDs that it was allotted.

    Raises NotFound, InvalidInput in a sentence.
    """
    for text in plan.get("mounts", ()):
        source = mount_of(text)[0]
        if not Path(source).exists():
            raise NotFound(f"mounts: {source} is not there on this node")
    if _real(gpus) and not images.gpus_known():
        raise InvalidInput(
            "this node has no CDI specification of its GPUs, without which a container cannot have "
            "them (`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` there)"
        )


def inside(node: Node, image: Image) -> Node:
    """The node as a container sees it: its own variables but for those that name files of the host."""
    network = {
        name: value
        for name, value in node.base.items()
        if name not in _OF_THE_HOST and not name.startswith("LC_")
    }
    return replace(
        node, python=None, base={"PATH": _PATH, "LANG": "C.UTF-8", **image.env, **network}
    )


def container(
    plan: LaunchPlan, node: Node, image: Image, env: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, Any]:
    """What the guard needs to know, for `launch.json`.

    Args:
        env: what the ranks have in common.
        environ: the agent's own environment.
    """
    work = node.folder / "work"
    options = [*_OPTIONS, f"--workdir={work}", *_limits()]
    options += _mount(node.folder, node.folder)
    options += _mount(node.checkpoints, node.checkpoints)
    options += _mount(WORKER_FOLDER, WORKER_FOLDER, readonly=True)
    for path in (*node.data.values(), *node.models.values()):
        options += _mount(path, path, readonly=True)
    for text in plan.get("mounts", ()):
        source, target, readonly = mount_of(text)
        options += _mount(source, target, readonly=readonly)
    if _real([gpu["uuid"] for gpu in node.gpus]):
        # All of them, of which CUDA_VISIBLE_DEVICES names the job's: as it is without a container.
        options.append("--device=nvidia.com/gpu=all")
    return {
        "folder": str(node.folder),
        "image": image.id,
        "options": options,
        "env": podman_environment(environ),
        "unset": [name for name in image.env if name not in env],
    }


def _real(gpus: list[str]) -> bool:
    return any(not gpu.startswith(PREFIX) for gpu in gpus)


def _mount(source: Path | str, target: Path | str, *, readonly: bool = False) -> list[str]:
    text = f"type=bind,source={source},destination={target}"
    return [f"--mount={text},readonly" if readonly else f"--mount={text}"]


def _limits() -> list[str]:
    """Ours, which ranks without a container have. podman would set others, higher than it may."""
    options = []
    for name, number in _LIMITS.items():
        options.append(f"--ulimit={name}={':'.join(map(str, resource.getrlimit(number)))}")
    return [*options, f"--ulimit=nproc={_processes()}"]


def _processes() -> str:
    """podman keeps itself below the number of process ids that there are, and its containers with it."""
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    return ":".join(str(most if limit < 0 else min(limit, most)) for limit in (soft, hard))
