"""A home for guards outside the unit that started them, so that `systemctl restart` ends no rank.

systemd ends every process in the cgroup of a unit that stops. So a guard leaves it before its first rank:
for the unit named by QD_RANKS_UNIT, which does nothing but hold the guards of this node (any user may move
its own processes into a delegated unit that runs as the same user), else, as root, for a transient scope.
Where systemd does not run, or refuses, the guard remains where it was born.

Two calls to systemd do not need a library for D-Bus, and the guard's interpreter could not load one
(`python -I -S`); its memory is counted.
"""

# pathlib would add a fifth to a guard's memory.
# ruff: noqa: PTH103, PTH112, PTH120, PTH123

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time

from agents.node.guard.cgroups import own_group

TYPE_CHECKING = False  # the real one would load `typing`
if TYPE_CHECKING:
    from collections.abc import Mapping

UNIT = "QD_RANKS_UNIT"
SLICE = "qd-ranks.slice"
_RUNNING = "/run/systemd/system"  # sd_booted(3)
_BUS = "/run/dbus/system_bus_socket"
_MANAGER = "org.freedesktop.systemd1"
_PATIENCE = 5.0
"""Seconds for systemd to answer. It takes 4 ms; a machine that is just starting may need longer."""
_AGAIN = (0.1, 0.3, 0.6, 0.0)
_LEAF = "guards"


def leave(name: str, environ: Mapping[str, str]) -> str | None:
    """Move this process out of the unit that it was started in.

    Args:
        name: of the scope, unique on this machine.

    Returns the cgroup in which the ranks' own may be made, beside the guard's; None where this
    process remains where it was. Raises OSError with the reason when systemd is there and refuses.
    """
    if not os.path.isdir(_RUNNING):
        return None
    if unit := environ.get(UNIT):
        return _join(unit)
    return _scope(name) if os.geteuid() == 0 else None


def _join(unit: str) -> str | None:
    """Into a leaf of a delegated unit in the same slice."""
    own = own_group()
    if own is None:
        return None
    home = f"{os.path.dirname(own)}/{unit}"
    os.makedirs(f"{home}/{_LEAF}", exist_ok=True)
    arguments = _string(unit)
    arguments += _padded(arguments, 4) + _string(f"/{_LEAF}")
    arguments += _padded(arguments, 4) + struct.pack("<II", 4, os.getpid())
    for pause in _AGAIN:
        try:
            _call("AttachProcessesToUnit", "ssau", arguments)
            break
        except OSError:
            if not pause:
                raise
            time.sleep(pause)  # the unit itself may be starting
    _enable(home)
    return home


def _scope(name: str) -> str | None:
    """Into a scope of its own, and there into a leaf: a cgroup with processes has no groups below it
    that the kernel would keep to a limit."""
    properties = b""
    for key, signature, value in (
        ("Description", "s", _string("a guard of Quarterdeck and its ranks")),
        ("PIDs", "au", struct.pack("<II", 4, os.getpid())),
        ("Slice", "s", _string(SLICE)),
        ("Delegate", "b", struct.pack("<I", 1)),
        ("CollectMode", "s", _string("inactive-or-failed")),
    ):
        properties += _padded(properties, 8) + _string(key)
        properties += bytes([len(signature)]) + signature.encode() + b"\0"
        properties += _padded(properties, 4) + value
    head = _string(f"{name}.scope")
    head += _padded(head, 4) + _string("fail")
    head += _padded(head, 4) + struct.pack("<I", len(properties))
    head += _padded(head, 8) + properties
    arguments = head + _padded(head, 4) + struct.pack("<I", 0)
    arguments += _padded(arguments, 8)
    _call("StartTransientUnit", "ssa(sv)a(sa(sv))", arguments)
    deadline = time.monotonic() + _PATIENCE
    while (own := own_group()) is None or not own.endswith(f"/{name}.scope"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"systemd has not made {name}.scope")
        time.sleep(0.0005)
    os.makedirs(f"{own}/{_LEAF}", exist_ok=True)
    with open(f"{own}/{_LEAF}/cgroup.procs", "w") as file:
        file.write("0")
    _enable(own)
    return own


def _enable(group: str) -> None:
    """Let the groups below have limits. Each by itself: one may be there and another not."""
    for controller in ("memory", "pids"):
        with (
            contextlib.suppress(OSError),
            open(f"{group}/cgroup.subtree_control", "w") as file,
        ):
            file.write(f"+{controller}")


def _call(method: str, signature: str, arguments: bytes) -> None:
    """Call a method of systemd's manager and wait for the answer. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bus:
        bus.settimeout(_PATIENCE)
        bus.connect(_BUS)
        bus.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        if not bus.recv(512).startswith(b"OK"):
            raise PermissionError("the system bus does not know this user")
        hello = _message(1, "org.freedesktop.DBus", "/org/freedesktop/DBus", "Hello", "", b"")
        call = _message(2, _MANAGER, "/org/freedesktop/systemd1", method, signature, arguments)
        bus.sendall(b"BEGIN\r\n" + hello + call)
        data = b""
        while True:
            data += bus.recv(65536) or _closed()
            while len(data) >= 16:
                body, _, fields = struct.unpack("<III", data[4:16])
                size = 16 + fields + -fields % 8 + body
                if len(data) < size:
                    break
                kind, header = data[1], data[16 : 16 + fields]
                if _answers(header, 2):
                    if kind == 3:  # an error, whose first argument is the reason
                        text = data[size - body + 4 : size].split(b"\0")[0]
                        raise PermissionError(text.decode(errors="replace"))
                    return
                data = data[size:]


def _closed() -> bytes:
    raise ConnectionError("the system bus closed the connection")


def _answers(header: bytes, serial: int) -> bool:
    """Whether a message is the reply to call number `serial` (header field 5, a `u`)."""
    return b"\5\1u\0" + struct.pack("<I", serial) in header


def _message(
    serial: int, destination: str, path: str, method: str, signature: str, arguments: bytes
) -> bytes:
    """A method call on D-Bus's wire, little-endian (D-Bus specification, "Message Format")."""
    fields = b""
    for code, kind, value in ((1, "o", path), (2, "s", _interface(destination)), (3, "s", method)):
        fields += _padded(fields, 8) + bytes([code, 1]) + kind.encode() + b"\0" + _string(value)
    fields += _padded(fields, 8) + bytes([6, 1]) + b"s\0" + _string(destination)
    if signature:
        fields += _padded(fields, 8) + bytes([8, 1]) + b"g\0"
        fields += bytes([len(signature)]) + signature.encode() + b"\0"
    head = struct.pack("<cBBBIII", b"l", 1, 0, 1, len(arguments), serial, len(fields))
    return head + fields + _padded(fields, 8) + arguments


def _interface(destination: str) -> str:
    return f"{_MANAGER}.Manager" if destination == _MANAGER else destination


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _padded(before: bytes, to: int) -> bytes:
    return b"\0" * (-len(before) % to)
