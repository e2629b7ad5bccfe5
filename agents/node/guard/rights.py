"""How a process of a root agent's becomes a user's: for ranks, and for all that runs beside them.

Standard library only, and little of it: the guard loads this.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # the real one would load `typing`
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def become(who: Mapping[str, Any] | None) -> None:
    """Be that user from here on, for good; None changes nothing. For a process that is about to exec.

    It takes the parent-death signal away, which has to be asked for afterwards.

    Args:
        who: {"uid", "gid", "groups"}, as `accounts.Account.to_json` has it.

    Raises OSError, and then the process must not go on.
    """
    if who is None:
        return
    os.setgroups(who["groups"])
    os.setresgid(who["gid"], who["gid"], who["gid"])
    os.setresuid(who["uid"], who["uid"], who["uid"])
