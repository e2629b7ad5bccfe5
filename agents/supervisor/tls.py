"""Encryption between a cluster's hosts: which of Ray's settings for it reach which of Ray's processes.

Ray takes them from the environment. Head, workers' Ray and the controller's driver must agree, so all three
get them from `variables`. A head that speaks TLS and a client that does not would be silent for 40 s, so
`disagreement` looks first. Ranks get none of them.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping

from agents.supervisor.policy import host_and_port
from jobs.base.errors import InvalidInput

SWITCH = "RAY_USE_TLS"
FILES = ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
PATIENCE = 2.0
"""Seconds that a head may take for its first words."""


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the environment turns TLS on; nothing where it is off."""
    if environ.get(SWITCH, "").strip().lower() not in ("1", "true"):
        return {}
    return {SWITCH: "1"} | {name: environ[name] for name in FILES if name in environ}


def check(environ: Mapping[str, str]) -> bool:
    """Whether TLS is on. Raises InvalidInput when it is, and a file for it cannot be read: Ray itself
    would say so only in a log of one of its parts."""
    found = variables(environ)
    if not found:
        return False
    for name in FILES:
        path = found.get(name, "")
        if not path or not os.access(path, os.R_OK):
            raise InvalidInput(
                f"{SWITCH} is on, and {name} names no file that can be read: '{path}'",
                f"Set {', '.join(FILES)} to this host's certificate, its key and the authority's.",
            )
    return True


def speaks(head: str) -> bool | None:
    """Whether "host:port" answers in TLS; None when it does not answer at all."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # who it is, Ray checks
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(host_and_port(head), timeout=PATIENCE) as plain,
            context.wrap_socket(plain),
        ):
            return True
    except ssl.SSLError as error:
        # An alert is TLS, too: it wants a certificate of ours, for instance.
        return "ALERT" in (error.reason or "")
    except (ConnectionResetError, BrokenPipeError):
        return False  # it hung up on what it took for nonsense
    except OSError:
        return None


def disagreement(head: str, on: bool) -> str:
    """What is wrong between this host and a head, in words; "" when they agree or it does not answer."""
    there = speaks(head)
    if there is None or there == on:
        return ""
    if there:
        return f"the head at {head} speaks TLS, and this host has it off ({SWITCH})"
    return f"this host has TLS on ({SWITCH}), and the head at {head} has it off"
