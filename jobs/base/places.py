"""Where things live on disk (XDG; `QD_HOME` puts everything under one folder)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path


def database_file(state: Path) -> Path:
    """The SQLite file of a state folder: `state.db`, or `registry.db` where a version before 0.2 made it."""
    old = state / "registry.db"
    return old if old.exists() else state / "state.db"


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of one control plane. Nothing is created here."""

    config: Path
    state: Path
    runtime: Path
    cache: Path
    node_state: Path | None = None  # the node's own, where it is not below `state`

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def socket(self) -> Path:
        return self.runtime / "api.sock"

    @property
    def gateway_socket(self) -> Path:
        """Where the controller hears from the gateway, which says for whom it speaks."""
        return self.runtime / "gateway.sock"

    @property
    def database(self) -> Path:
        return database_file(self.state)

    @property
    def blobs(self) -> Path:
        return self.state / "blobs"

    @property
    def logs(self) -> Path:
        """Rank logs as the controller keeps them: `logs/j1/1/r0.log`."""
        return self.state / "logs"

    @property
    def node(self) -> Path:
        """State of the agent of this machine (embedded cluster)."""
        return self.node_state or self.state / "node"

    @property
    def daemon_logs(self) -> Path:
        return self.state / "daemon"

    @property
    def ray_token(self) -> Path:
        return self.state / "ray-token"

    @property
    def cluster_file(self) -> Path:
        """What `qd up` was asked for and what runs now: written by the supervisor, JSON."""
        return self.state / "cluster.json"

    @property
    def controller_lock(self) -> Path:
        """Locked by the controller while it lives."""
        return self.state / "controller.lock"

    @property
    def last_words(self) -> Path:
        """Why the controller could not start, the last time that it could not: an error as JSON."""
        return last_words(self.socket)

    @property
    def ray_temp(self) -> Path:
        """Ray's own folder. Ray makes unix sockets about 65 bytes below it, and the kernel allows 107
        in all, so it cannot live under `state`; the name is derived from it instead."""
        digest = hashlib.sha256(str(self.state).encode()).hexdigest()[:10]
        return Path("/tmp") / f"qd-{os.getuid()}-{digest}"  # noqa: S108 - private (0700), see above


SYSTEM = Places(
    config=Path("/etc/quarterdeck"),
    state=Path("/var/lib/quarterdeck"),
    runtime=Path("/run/quarterdeck"),
    cache=Path("/var/cache/quarterdeck"),
)
"""Of a cluster that runs as a service of its machine."""


def last_words(socket: Path) -> Path:
    """See `Places.last_words`; of the controller whose API's socket that is."""
    return socket.with_name("controller.failed")


def places(environ: Mapping[str, str] | None = None) -> Places:
    """Resolve the folders from the environment.

    `QD_HOME` overrides everything. `QD_SYSTEM` names the folders of a service of the whole machine.
    Otherwise the XDG folders are used, with `quarterdeck` below each; without `XDG_RUNTIME_DIR` the
    socket lies in the state folder. `QD_NODE_STATE` puts the node's own state elsewhere: where ranks run
    as users, they have to get there, and the rest of the state is nobody's business.
    """
    env = os.environ if environ is None else environ
    found, node = _places(env), env.get("QD_NODE_STATE")
    return replace(found, node_state=Path(node).expanduser().absolute()) if node else found


def _places(env: Mapping[str, str]) -> Places:
    home = env.get("QD_HOME")
    if home:
        root = Path(home).expanduser().absolute()
        return Places(root / "config", root / "state", root / "run", root / "cache")
    if env.get("QD_SYSTEM"):
        return SYSTEM
    user = Path(env.get("HOME") or Path.home())
    state = Path(env.get("XDG_STATE_HOME") or user / ".local" / "state") / "quarterdeck"
    runtime_base = env.get("XDG_RUNTIME_DIR")
    return Places(
        config=Path(env.get("XDG_CONFIG_HOME") or user / ".config") / "quarterdeck",
        state=state,
        runtime=Path(runtime_base) / "quarterdeck" if runtime_base else state / "run",
        cache=Path(env.get("XDG_CACHE_HOME") or user / ".cache") / "quarterdeck",
    )
