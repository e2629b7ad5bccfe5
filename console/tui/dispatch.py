"""How an action of the registry finds the method that does it."""

from __future__ import annotations

from textual.dom import DOMNode

from console.tui import actions


class Acts(DOMNode):
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
    node: DOMNode | None = start
    while node is not None:
        method = getattr(node, action.method, None)
        if method is not None:
            method(*keys)
            return True
        node = node.parent if node is not app else None
    return False
