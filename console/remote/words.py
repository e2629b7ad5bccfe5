"""What failed on the way to a head, in words, and what to do about it."""

from __future__ import annotations

import errno
import os
import socket

import asyncssh

from console.remote.target import Target
from jobs.base.errors import InvalidInput, NotAllowed, QuarterdeckError, Unreachable


def host_key(target: Target, *, known: bool) -> NotAllowed:
    """The head's key is not what is written down here, or nothing is."""
    if known:
        return NotAllowed(
            f"the host key of {target.host} is not the one that is known here",
            "Someone may be intercepting the connection. Ask its owner; `ssh-keygen -R` forgets the old key.",
        )
    return NotAllowed(
        f"the host key of {target.host} is not known here",
        f"Log in once with `{target.ssh}`, compare the key that it shows, and try again.",
    )


def refused_login(target: Target) -> NotAllowed:
    return NotAllowed(
        f"{target.address} does not let you in",
        f"`{target.ssh}` has to work without a question: put your key on {target.host}, and into the "
        "agent when it has a passphrase (`ssh-add`).",
    )


def no_answer(target: Target, seconds: float) -> Unreachable:
    return Unreachable(
        f"{target.host} did not answer within {seconds:g} s",
        f"Check that `{target.ssh}` works.",
    )


def lost(target: Target) -> Unreachable:
    return Unreachable(
        f"the SSH connection to {target.host} was cut", "Jobs run on without it. Try again."
    )


def nothing_there(target: Target) -> Unreachable:
    """No socket lies in the usual places on the head."""
    return Unreachable(
        f"no control plane was found on {target.host}",
        f"Start it there (`{target.ssh} qd up`), or say where its socket is: "
        "`qd context add NAME HOST --socket PATH`; `qd status --json` on the head names it.",
    )


def no_shell(target: Target) -> Unreachable:
    return Unreachable(
        f"{target.host} runs no commands for you, so its socket cannot be looked for",
        "Say where it is: `qd context add NAME HOST --socket PATH`.",
    )


def socket_error(target: Target, path: str, name: str) -> QuarterdeckError:
    """Why the API's socket on the head cannot be used, by the name of the error that the head met.

    `name` is empty when not even that could be found out.
    """
    if name in ("ENOENT", "ECONNREFUSED", "ENOTDIR"):
        return Unreachable(
            f"the control plane on {target.host} is not running",
            f"Start it there: `{target.ssh} qd up`. It should listen at {path}.",
        )
    if name in ("EACCES", "EPERM"):
        return NotAllowed(
            f"no permission to use the socket {path} on {target.host}",
            "Log in as the account that runs the control plane.",
        )
    if name:
        said = os.strerror(getattr(errno, name)) if hasattr(errno, name) else name
        return Unreachable(f"the socket {path} on {target.host} cannot be used: {said}")
    return Unreachable(
        f"{target.host} lets neither sockets nor a program of ours through",
        "Its sshd needs `AllowStreamLocalForwarding yes`, or a shell with Python 3 for your account.",
    )


def of_error(target: Target, error: Exception, seconds: float) -> QuarterdeckError:
    """What a failed connection means. `seconds`: how long it was waited for."""
    if isinstance(error, QuarterdeckError):
        return error
    if isinstance(error, asyncssh.PermissionDenied):
        return refused_login(target)
    if isinstance(error, TimeoutError):
        return no_answer(target, seconds)
    if isinstance(error, asyncssh.ConfigParseError):
        return InvalidInput(f"your SSH config: {error}", "Correct it in ~/.ssh/config.")
    if isinstance(error, asyncssh.ConnectionLost):
        return lost(target)
    hint = f"Check that `{target.ssh}` works."
    if isinstance(error, asyncssh.DisconnectError | asyncssh.ChannelOpenError):
        return Unreachable(f"no SSH connection to {target.host}: {error.reason}", hint)
    if isinstance(error, socket.gaierror):
        return Unreachable(f"there is no host {target.host}: {error.strerror}", hint)
    if isinstance(error, OSError):
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        if error.filename:  # of a program that the SSH config names
            why = f"{error.filename}: {why}"
        return Unreachable(f"{target.host} cannot be reached: {why}", hint)
    return Unreachable(f"no SSH connection to {target.host}: {error}", hint)
