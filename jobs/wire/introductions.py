"""How the gateway says for whom a connection is: one line of JSON before the first request.

The controller reads it on the gateway's socket only, and there it takes connections from its own user
alone. A connection without this line is closed, so nobody acts as somebody by leaving it out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from jobs.access.roles import Role, check_person

LONGEST = 1024
"""Bytes of a line, its end included."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """A person and the role of the key with which they logged in."""

    user: str
    role: Role

    def line(self) -> bytes:
        return json.dumps({"user": self.user, "role": str(self.role)}).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Introduction:
        """Read what `line` wrote. Raises ValueError."""
        document = json.loads(line)
        if not isinstance(document, dict) or document.keys() != {"user", "role"}:
            raise ValueError("an introduction has a user and a role")
        return cls(check_person(str(document["user"])), Role.parse(str(document["role"])))
