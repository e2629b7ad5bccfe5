"""The addresses of this machine and the way to a head. Plain sockets; everything answers in seconds."""

from __future__ import annotations

import ipaddress
import socket

from agents.supervisor.policy import host_and_port
from jobs.base.errors import InvalidInput, Unreachable

LOOPBACK = "127.0.0.1"

CONNECT_TIMEOUT = 2.0
"""Seconds for a TCP connection inside a cluster."""


def own_address(text: str) -> str:
    """The IPv4 address of this machine that `text` (an address or a host name) means.

    Raises InvalidInput when it means none, or all of them: others must be told one that they reach.
    """
    try:
        address = socket.gethostbyname(text)
    except OSError:
        address = ""
    hint = (
        "Give an IPv4 address of this machine that the other nodes reach; `ip -4 addr` lists them."
    )
    if not address:
        raise InvalidInput(f"'{text}' is no address that this machine knows", hint)
    if ipaddress.ip_address(address).is_unspecified:
        raise InvalidInput(f"{text} stands for every address of this machine", hint)
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            raise InvalidInput(f"{text} is not an address of this machine", hint) from error
    return address


def address_towards(head: str) -> str:
    """The address with which this machine reaches a head ("host:port"); nothing is sent.

    Raises Unreachable when there is no way to it.
    """
    host, port = host_and_port(head)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, port))
        except OSError as error:
            raise Unreachable(
                f"there is no way to {host} from here: {error.strerror}",
                "Check the address and the network, or name this node's own with --address.",
            ) from error
        address: str = probe.getsockname()[0]
        return address


def answers(head: str) -> bool:
    """Whether something listens at "host:port"."""
    try:
        socket.create_connection(host_and_port(head), timeout=CONNECT_TIMEOUT).close()
    except OSError:
        return False
    return True
