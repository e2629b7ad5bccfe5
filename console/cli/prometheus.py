"""`qd prometheus`: the control plane's metrics, once or for a Prometheus that asks again and again."""

from __future__ import annotations

import http.server
from typing import Annotated

import typer

from console.cli.options import Json
from console.cli.output import emit, narrate, say
from console.client import Client
from jobs.base.errors import InvalidInput, QuarterdeckError

_PATIENCE = 10.0
"""Seconds that a scrape may take: as long as Prometheus waits by default."""


def prometheus(
    listen: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS:PORT", help="Serve /metrics there until Ctrl-C."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print metrics for Prometheus, or serve them.

    \b
      qd prometheus                             once, to read or for node_exporter's textfile collector
      qd prometheus --listen 127.0.0.1:9464     for Prometheus to scrape

    Whoever can reach the address can read the metrics, and nothing else.
    """
    client = Client.from_environment().with_timeout(_PATIENCE)
    if listen is None:
        text = metrics(client)
        if as_json:
            emit({"text": text.decode()})
        else:
            say(text.decode().removesuffix("\n"))
        return
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise InvalidInput(f"--listen: found '{listen}'; allowed: 127.0.0.1:9464")
    try:
        server = Exporter((host.strip("[]"), int(port)), client)
    except OSError as error:
        raise InvalidInput(f"cannot listen on {listen}: {error.strerror}") from error
    url = f"http://{host}:{server.server_port}/metrics"
    if as_json:
        emit({"url": url})
    else:
        narrate(f"{url}; Ctrl-C ends it")
    with server:
        server.serve_forever()


def metrics(client: Client) -> bytes:
    return client.raw("/v1/metrics")[0]


class Exporter(http.server.ThreadingHTTPServer):
    """Asks the control plane at each scrape; 503 while there is none."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], client: Client) -> None:
        super().__init__(address, _Handler)
        self.client = client


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 10  # seconds that somebody may take to ask

    def do_GET(self) -> None:
        assert isinstance(self.server, Exporter)
        status, body, kind = 200, b"", "text/plain; version=0.0.4; charset=utf-8"
        if self.path.partition("?")[0] != "/metrics":
            status, body, kind = 404, b"/metrics\n", "text/plain"
        else:
            try:
                body = metrics(self.server.client)
            except QuarterdeckError as error:
                status, body, kind = 503, f"{error.message}\n".encode(), "text/plain"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A scrape is no news."""
