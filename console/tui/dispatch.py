"""How an action of the registry finds the method that does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.dom import DOMNode

from console import guest
from console.tui import actions

if TYPE_CHECKING:
    from console.tui.app import QuarterdeckApp


class Aboard(DOMNode):
    """A widget or screen of our app."""

    @property
    def deck(self) -> QuarterdeckApp:
        """The app, by its own type."""
        from console.tui.app import QuarterdeckApp

        app = self.app
        assert isinstance(app, QuarterdeckApp)
        return app


class Acts(Aboard):
    """A widget, screen or app whose bindings come from the registry.

    An action is done by the nearest of focused widget, screen and app that has its method.
    """

    def action_act(self, wanted: str, *keys: str) -> None:
        perform(self, wanted, *keys)


def perform(start: DOMNode, wanted: str, *keys: str) -> bool:
    """Do an action from `start` outwards. False when nobody there can do it, or it is switched off."""
    from console.tui.app import QuarterdeckApp

    action = actions.by_id(wanted)
    app = start.app
    assert isinstance(app, QuarterdeckApp)
    if action.changes and app.read_only:
        app.tell(f"{action.label}: switched off, this console is read-only", severity="warning")
        return False
    if action.local and guest.folder() is not None:
        app.tell(
            f"{action.label or action.help}: not offered through the gateway", severity="warning"
        )
        return False
    method = find(start, action.method)
    if method is not None:
        method(*keys)
    return method is not None


def find(start: DOMNode, name: str) -> Callable[..., object] | None:
    """The method of that name which is nearest to `start`: its own, its parents', the app's."""
    node: DOMNode | None = start
    while node is not None:
        method: Callable[..., object] | None = getattr(node, name, None)
        if method is not None:
            return method
        node = node.parent if node is not start.app else None
    return None
