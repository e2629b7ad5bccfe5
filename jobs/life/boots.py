"""Which boot of which machine something belongs to: how a node's restart is told from another machine.

No process outlives its boot. But another machine under the same name, while the first one is cut off, has
another boot id as well: only the same machine in a later boot proves anything.
"""

from __future__ import annotations


def named(machine: str, boot_id: str) -> str:
    """Both in one word; empty when either is not known."""
    return f"{machine}/{boot_id}" if machine and boot_id else ""


def restarted(then: str, now: str) -> bool:
    """Whether what belonged to `then` is certainly over, since its machine runs in `now`."""
    machine, _, boot = then.partition("/")
    later, _, another = now.partition("/")
    return bool(machine and boot and another) and machine == later and boot != another
