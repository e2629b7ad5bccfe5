"""`python -m agents.daemon`: the controller process. `qd up` starts it through the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import grp
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Generator, Mapping
from pathlib import Path

import uvicorn

from agents.controller.api import create_app
from agents.controller.api.identity import GROUP, PeerProtocol
from agents.controller.commands.stepping import Stepping
from agents.controller.controller import Controller
from agents.controller.stores.blobplace import open_blobs
from agents.controller.stores.copies import Bounds
from agents.controller.stores.pruning import GRACE
from agents.supervisor import solo
from jobs.base.errors import Conflict, InvalidInput, QuarterdeckError
from jobs.base.places import Places, places
from jobs.base.units import parse_duration
from jobs.spec.runas import RanksAs

log = logging.getLogger("agents.daemon")

TURN = 0.001
"""Seconds for which a thread may keep the interpreter from the others, instead of Python's 0.005. The
registry's thread gives it up at each statement, and while the event loop is busy has to wait so long
to go on; all that waits for a commit waits with it."""


def bind(path: Path, group: str | None = None) -> socket.socket:
    """A listening unix socket that only this user may open, replacing one that is left over.

    We bind it ourselves: uvicorn's `uds=` would make it world-writable.

    Args:
        group: whose members may open it too. Its folder must let them in.

    Raises InvalidInput when there is no such group, or this user may not give files to it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    before = os.umask(0o077)
    try:
        listener.bind(str(path))
        if group:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
            path.chmod(0o660)
    except (KeyError, PermissionError) as error:
        listener.close()
        raise InvalidInput(
            f"{GROUP} is '{group}', and the API's socket cannot be given to it: {error}",
            "Name a group of which the service's user is a member.",
        ) from error
    finally:
        os.umask(before)
    listener.listen(1024)
    return listener


def ray_address(where: Places) -> str | None:
    """GCS address of the embedded Ray, as its supervisor wrote it down."""
    try:
        told = json.loads(where.cluster_file.read_text())
    except (OSError, ValueError):
        return None
    address = told.get("ray_address")
    return str(address) if address else None


def prune_after(environ: Mapping[str, str]) -> tuple[float, str]:
    """Seconds after which a blob goes that nothing refers to, from QD_PRUNE_AFTER, such as "7d"; and
    what is wrong with that. A typing error is no reason to be without a controller."""
    text = environ.get("QD_PRUNE_AFTER")
    try:
        return parse_duration(text) if text else GRACE, ""
    except ValueError as error:
        return GRACE, f"QD_PRUNE_AFTER: {error}"


def waits_for_nodes(environ: Mapping[str, str]) -> tuple[bool, str]:
    """Whether jobs that leave `on_node_loss` open wait for lost nodes, from QD_ON_NODE_LOSS; and what is
    wrong with that. What cannot be read may have been meant to be the safer choice, so it is taken so."""
    text = environ.get("QD_ON_NODE_LOSS", "").strip()
    if text in ("", "restart", "wait"):
        return text == "wait", ""
    return True, f"QD_ON_NODE_LOSS is '{text}', which is taken for 'wait'; allowed: restart, wait"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which raise the signal again after a clean end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    def stop(self) -> None:
        self.should_exit = True


async def serve(where: Places) -> None:
    """Run until SIGTERM or SIGINT. What runs on the nodes runs on."""
    # Imported late: the API answers while Ray's half second of imports still goes on elsewhere.
    from agents.fabric.ray import RayFabric

    grace, complaint = prune_after(os.environ)
    copying, wrong = Bounds.from_env(os.environ)
    waiting, unclear = waits_for_nodes(os.environ)
    ranks_as, unknown = RanksAs.from_env(os.environ)
    controller = await Controller.open(
        state=where.state,
        fabric=RayFabric(where),
        database_url=os.environ.get("QD_DATABASE_URL"),
        blobs=open_blobs(where.state, where.config, os.environ),
        ray_address=lambda: ray_address(where),
        prune_after=grace,
        copying=copying,
        rules=where.config / "alerts.yaml",
        acts=Stepping,
        waiting=waiting,
        ranks_as=ranks_as,
    )
    controller.complain("pruning", complaint)
    controller.complain("checkpoint settings", wrong)
    controller.complain("node loss setting", unclear)
    controller.complain("setting of the ranks' account", unknown)
    await controller.start()
    config = uvicorn.Config(
        create_app(controller),
        http=PeerProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    with (
        contextlib.closing(bind(where.socket, os.environ.get(GROUP))) as listener,
        contextlib.closing(bind(where.gateway_socket)) as gateway,
    ):
        with contextlib.suppress(OSError):  # a disk that fails is no reason to answer nobody
            where.last_words.unlink()
        await server.serve([listener, gateway])
    await controller.close()


def main() -> int:
    logging.basicConfig(
        level=os.environ.get("QD_LOG", "INFO"),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    sys.setswitchinterval(TURN)
    faulthandler.enable()  # the supervisor ends a controller that hangs with SIGABRT
    os.umask(0o077)
    where = places()
    where.state.mkdir(parents=True, exist_ok=True)
    try:
        solo.hold(where.controller_lock)
    except Conflict as error:
        log.error("%s", error.message)
        return error.exit_code
    try:
        asyncio.run(serve(where))
    except Exception as error:
        log.exception("the controller ends")
        leave_words(where.last_words, error)
        return 1
    return 0


def leave_words(path: Path, error: Exception) -> None:
    """Say why there is no controller where every command looks that does not reach one."""
    if not isinstance(error, QuarterdeckError):
        error = QuarterdeckError(str(error) or repr(error), "All of it is in the controller's log.")
    beside = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside.write_text(json.dumps(error.to_json()))
        beside.replace(path)
    except OSError as failure:
        log.error("nobody is told: %s", failure)


if __name__ == "__main__":
    sys.exit(main())
