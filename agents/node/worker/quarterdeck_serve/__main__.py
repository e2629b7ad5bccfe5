"""Start the server: load, warm up, listen; on SIGTERM say "not ready", finish what is under way, end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import Generator
from pathlib import Path

import uvicorn

from .app import Application, Limits, Runnable
from .inferlog import FOLDER, Recorder, options_of_process
from .mirror import LOOK_EVERY, Mirror
from .model import Model
from .raw import RawModel

NOTICE = 1.0
"""Seconds for which it answers after it has said that it is not ready: the front looks twice a second."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would stop answering at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="quarterdeck_serve", description=__doc__)
    parser.add_argument("model", type=Path, help="an ONNX file")
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", default="1")
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")))
    parser.add_argument("--threads", type=int, default=1, help="that one inference may use")
    parser.add_argument("--max-body", type=int, default=Limits.body, help="bytes")
    parser.add_argument("--max-running", type=int, default=Limits.running, help="requests at once")
    parser.add_argument("--body-timeout", type=float, default=Limits.patience, help="seconds")
    parser.add_argument("--transform", type=Path, help="a version of features, before the model")
    parser.add_argument("--allow-nan", action="store_true", help="pass on NaN and infinities")
    parser.add_argument(
        "--log-sample", type=float, help="share of the requests in the inference log"
    )
    parser.add_argument("--log-max", type=int, help="bytes of it on disk")
    parser.add_argument("--log-redact", action="append", default=[], help="x or x[3]: not written")
    return parser.parse_args()


async def serve(args: argparse.Namespace) -> None:
    limits = Limits(args.max_body, args.body_timeout, args.max_running)
    model: Runnable = Model(args.model, args.threads)
    if args.transform is not None:
        model = RawModel(model, args.transform)
    options = options_of_process(args.log_sample, args.log_max, args.log_redact)
    folder = Path(os.environ.get("QD_WORK_DIR", ".")) / FOLDER
    recorder = Recorder(options, folder, args.version)
    inbox, outbox = (os.environ.get(name) for name in ("QD_INBOX", "QD_OUTBOX"))
    mirror = Mirror(
        Path(inbox) if inbox else None,
        Path(outbox) if outbox else None,
        f"/v2/models/{args.name}/infer",
    )
    app = Application(
        model,
        args.name,
        args.version,
        limits,
        allow_nan=args.allow_nan,
        recorder=recorder,
        mirror=mirror,
    )
    config = uvicorn.Config(
        app,
        host=args.host,
        port=args.port,
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,  # longer than the front keeps a connection: it closes first
        timeout_graceful_shutdown=30,
    )
    server = Server(config)
    loop = asyncio.get_running_loop()

    def end() -> None:
        app.draining = True
        loop.call_later(NOTICE, setattr, server, "should_exit", True)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)

    async def look() -> None:
        while True:
            mirror.look()
            await asyncio.sleep(LOOK_EVERY)

    looking = loop.create_task(look())
    print(f"{args.name} {args.version} listens on {args.host}:{args.port}", flush=True)  # noqa: T201 - the replica's log
    await server.serve()
    looking.cancel()
    mirror.close()
    recorder.close()


if __name__ == "__main__":
    options = arguments()
    config = uvicorn.Config("", loop="auto")
    factory = config.get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(options))
