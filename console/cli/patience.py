"""How a command that waits lives through a restart of the control plane.

Jobs run on while the controller is away, so a command that follows one must not give up on the
first broken connection, and must say that what it shows has stopped.
"""

from __future__ import annotations

from console.cli.output import narrate
from console.client import Client
from jobs.errors import Unreachable

LIMIT = 120.0
"""Seconds to wait for a controller that is away. A restart takes a few; after two minutes a person
has to look, and a script should hear of it."""

_PAUSE = 0.5


class Patience:
    """Counts how long the control plane has been away. Say `failed` and `worked` as calls do."""

    def __init__(self, client: Client, limit: float = LIMIT) -> None:
        self._client = client
        self._limit = limit
        self._since: float | None = None

    def failed(self, error: Unreachable) -> None:
        """Pause before the next try. Raises `error` when the control plane was away too long."""
        now = self._client.clock()
        if self._since is None:
            self._since = now
            narrate("connection lost; waiting for the control plane to come back")
        elif now - self._since >= self._limit:
            raise error
        self._client.sleep(_PAUSE)

    def worked(self) -> None:
        if self._since is not None:
            self._since = None
            narrate("connected again")
