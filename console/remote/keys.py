"""Which of the user's keys are shown to a host, where the SSH config names some (`IdentityFile`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncssh


def keys(config: Any) -> dict[str, Any]:
    """Arguments for `asyncssh.connect`; none where the config names no key, for then its defaults are right.

    asyncssh stops at a key that is not there, cannot be read or has a passphrase. Such keys are common, and
    OpenSSH goes on: the agent may hold them, and has their public half told from the file beside them.

    Args:
        config: an asyncssh client config (`get(option, default)`).
    """
    files = [Path(name).expanduser() for name in config.get("IdentityFile", None) or ()]
    if not files:
        return {}
    private = [key for file in files for key in _private(file)]
    only = bool(config.get("IdentitiesOnly", None))
    public = [key for file in files for key in _public(file)] if only else []
    return {"client_keys": private} | ({"agent_identities": public} if public else {})


def _private(file: Path) -> list[asyncssh.SSHKeyPair]:
    try:
        return list(asyncssh.load_keypairs(str(file), ignore_encrypted=True, skip_public=True))
    except (OSError, ValueError):
        return []


def _public(file: Path) -> list[asyncssh.SSHKey]:
    for beside in (Path(f"{file}.pub"), file):
        try:
            return [asyncssh.read_public_key(str(beside))]
        except (OSError, ValueError):
            continue
    return []
