"""The four roles. Each may do what those before it may."""

from __future__ import annotations

import re
from enum import IntEnum

PERSON = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}")
"""Names of people. They are names of folders too, so none may be `..` or begin with a dot."""


class Role(IntEnum):
    """Ordered: `role >= Role.OPERATOR` asks whether an operator's work is allowed.

    A viewer looks; an operator runs and stops work; an approver also says which model may be used;
    an admin also changes the cluster itself.
    """

    VIEWER = 1
    OPERATOR = 2
    APPROVER = 3
    ADMIN = 4

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Role:
        """The role of that name. Raises ValueError."""
        for role in cls:
            if text == str(role):
                return role
        names = ", ".join(str(role) for role in cls)
        raise ValueError(f"there is no role '{text}'; there are {names}")


def check_person(name: str) -> str:
    """`name`, when it can name a person. Raises ValueError."""
    if not PERSON.fullmatch(name) or name == "root":
        raise ValueError(
            f"'{name}' cannot name a person; allowed: letters, digits, and . _ - @ inside, and not root"
        )
    return name
