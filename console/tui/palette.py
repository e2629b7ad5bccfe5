"""The command palette, made from the action registry."""

from __future__ import annotations

from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider

from console.tui import actions
from console.tui.dispatch import perform
from console.tui.screens.base import Frame


class ActionCommands(Provider):
    """Offers what can be done from where the palette was opened."""

    def _offers(self) -> list[actions.Action]:
        screen = self.screen
        if not isinstance(screen, Frame):
            return []
        works = actions.in_scopes(screen.scopes())
        return [a for a in actions.allowed(works, read_only=screen.deck.read_only) if a.palette]

    def _do(self, action: actions.Action) -> None:
        perform(self.focused or self.screen, action.id)

    async def discover(self) -> Hits:
        for action in self._offers():
            yield DiscoveryHit(action.help, partial(self._do, action), help=self._key(action))

    def _key(self, action: actions.Action) -> str:
        screen = self.screen
        return f"key {screen.deck.keymap.show(action)}" if isinstance(screen, Frame) else ""

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action in self._offers():
            score = matcher.match(action.help)
            if score > 0:
                yield Hit(
                    score,
                    matcher.highlight(action.help),
                    partial(self._do, action),
                    help=self._key(action),
                )
