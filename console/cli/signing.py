"""Signing with the person's own SSH key, by `ssh-keygen -Y sign`: an agent and hardware keys work too."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from jobs.base.errors import InvalidInput, NotAllowed

_KEYS = ("id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa")
VARIABLE = "QD_SIGNING_KEY"


def find_key(environ: Mapping[str, str], given: Path | None = None) -> Path:
    """The key to sign with: the one given, that of QD_SIGNING_KEY, or the first of those that ssh uses.

    Raises InvalidInput.
    """
    if given is None and environ.get(VARIABLE):
        given = Path(environ[VARIABLE])
    if given is not None:
        given = given.expanduser()
        if not given.is_file():
            raise InvalidInput(
                f"{given}: no such key", "A private key, or the .pub of one in an agent."
            )
        return given
    folder = Path(environ.get("HOME", "~")).expanduser() / ".ssh"
    for name in _KEYS:
        for path in (folder / name, folder / f"{name}.pub"):
            if path.is_file():
                return path
    raise InvalidInput(f"there is no SSH key in {folder}", f"Name one with --key, or {VARIABLE}.")


def sign(statement: bytes, namespace: str, key: Path) -> str:
    """The armoured signature. A passphrase or a PIN is asked for by ssh-keygen on the terminal.

    Raises NotAllowed when the key does not sign.
    """
    with tempfile.TemporaryDirectory(prefix="qd-sign-") as folder:
        file = Path(folder) / "statement"
        file.write_bytes(statement)
        command = ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(key), str(file)]
        try:
            done = subprocess.run(command, stderr=subprocess.PIPE, check=False, env=os.environ)
        except FileNotFoundError:
            raise InvalidInput("ssh-keygen is not installed", "It comes with OpenSSH.") from None
        if done.returncode:
            why = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise NotAllowed(f"{key} did not sign: {why[-1] if why else 'no reason was given'}")
        return file.with_suffix(".sig").read_text()
