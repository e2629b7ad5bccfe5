"""How commands live through a control plane that is away, or slow to answer.

Jobs run on while the controller is away, so a command that follows one must not give up on the
first broken connection, and must say that what it shows has stopped. A submission that was not answered
may have been taken, so it is sent again with its key, and says so where that is of no use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from console.cli.output import narrate
from console.client import Client, Cut
from jobs.base.errors import Unreachable

LIMIT = 120.0
"""Seconds to wait for a controller that is away. A restart takes a few; after two minutes a person
has to look, and a script should hear of it."""

_PAUSE = 0.5
_TO_SUBMIT = 60.0
"""Seconds for a submission: as long as a registry may be locked by a backup or a person with a tool."""


def send(client: Client, path: str, body: Mapping[str, Any]) -> Any:
    """Submit `body`, which has a `key`: the same key never makes a second one.

    Raises:
        Cut: no answer came; the hint has the key.
    """

    def late() -> None:
        narrate("the control plane is slow to answer; asking again, with the same key")

    try:
        return client.act(path, body, patience=_TO_SUBMIT, late=late)
    except Cut as error:
        error.hint = (
            f"It may have been taken. With `--key {body['key']}` the same command starts it once, "
            f"or shows what was started. {error.hint}"
        )
        raise


class Patience:
    """Counts how long the control plane has been away. Say `failed` and `worked` as calls do.

    Args:
        tell: is passed what a person should know.
    """

    def __init__(
        self, client: Client, limit: float = LIMIT, *, tell: Callable[[str], None] = narrate
    ) -> None:
        self._client = client
        self._limit = limit
        self._tell = tell
        self._since: float | None = None

    def failed(self, error: Unreachable) -> None:
        """Pause before the next try. Raises `error` when the control plane was away too long."""
        now = self._client.clock()
        if self._since is None:
            self._since = now
            self._tell("connection lost; waiting for the control plane to come back")
        elif now - self._since >= self._limit:
            raise error
        self._client.sleep(_PAUSE)

    def worked(self) -> None:
        if self._since is not None:
            self._since = None
            self._tell("connected again")
