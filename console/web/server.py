"""Serves the console to browsers of this machine.

Loopback is open to everyone who has an account on the machine, so the address is a secret as well: all
that is served lies under a path that cannot be guessed, and nothing else is answered. The path is on no
command line (`ps` shows those to everyone), and the page tells it to no one else: no referrer, no cookie
(which other ports of this host would get), nothing from other hosts.

Each page is a console of its own, a process that ends with it.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import shlex
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from textual_serve.server import Server

from jobs.base import python

_PAGE = Path(__file__).parent / "page"
_SECRET_BYTES = 24

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "connect-src 'self' ws:; img-src 'self' data:; font-src 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""`ws:` because not every browser counts a WebSocket of the page's own origin as 'self'."""

_OURS_ALONE = ("TMUX", "STY", "SSH_CONNECTION", "SSH_TTY", "NO_COLOR")
"""Variables that tell of the terminal in which `qd web` runs; a browser is another one."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebConsole(Server):
    """Args:
    port: to listen on, on 127.0.0.1; 0 takes one that is free.
    options: command line options of `console.tui`.

    Raises:
        OSError: the port is taken or not allowed.
    """

    def __init__(self, port: int, options: list[str]) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        self._secret = secrets.token_urlsafe(_SECRET_BYTES)
        super().__init__(
            shlex.join(python.module("console.tui", *options)),
            host="127.0.0.1",
            port=self._socket.getsockname()[1],
            title="Quarterdeck",
            templates_path=_PAGE,
        )

    @property
    def address(self) -> str:
        """What a browser opens."""
        return f"{self.public_url}/{self._secret}/"

    async def _make_app(self) -> web.Application:
        outer = web.Application(middlewares=[self._guard])
        outer.add_subapp(f"/{self._secret}", await super()._make_app())
        return outer

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        first = request.path.split("/", 2)[1]
        if not hmac.compare_digest(first.encode(), self._secret.encode()):
            raise web.HTTPNotFound
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    def initialize_logging(self) -> None:
        """Nothing is logged: the one thing to tell is the address, and the command tells it."""

    async def on_startup(self, app: web.Application) -> None:
        """No banner."""

    def serve(self, debug: bool = False) -> None:
        """Serve until SIGINT or SIGTERM."""
        for name in _OURS_ALONE:
            os.environ.pop(name, None)
        web.run_app(
            self._make_app(),
            sock=self._socket,
            print=None,
            access_log=None,
            shutdown_timeout=2.0,
            loop=asyncio.new_event_loop(),
        )
