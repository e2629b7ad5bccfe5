"""What requests about models have in common: who asks, and about which version."""

from __future__ import annotations

import grp
import os
import pwd

from sqlmodel import Session

from jobs.base.errors import Conflict, InvalidInput
from jobs.models.names import MAX_COMMENT, ModelRef, version_name
from jobs.store import models
from jobs.store.modeltables import ModelRow, ModelVersionRow
from jobs.store.writing import Caller


def groups_of(who: Caller) -> frozenset[str]:
    """The names of the groups that a caller is in, as the system says. Blocking."""
    try:
        numbers = os.getgrouplist(who.user, pwd.getpwuid(who.uid).pw_gid)
    except (KeyError, OSError):
        return frozenset()
    names = set()
    for number in numbers:
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return frozenset(names)


def check_comment(text: str) -> None:
    if len(text) > MAX_COMMENT or "\0" in text:
        raise InvalidInput(
            f"a reason of {len(text)} characters; allowed: at most {MAX_COMMENT}, without NUL"
        )


def open_version(session: Session, ref: ModelRef) -> tuple[ModelRow, ModelVersionRow]:
    """A version that is not archived. Raises NotFound and Conflict."""
    model, row = models.get_version(session, ref)
    if row.archived_at is not None:
        name = version_name(model.name, row.number)
        raise Conflict(f"{name} is archived", f"`qd model archive {name} --undo` restores it.")
    return model, row
