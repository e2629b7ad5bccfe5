"""A backup while the control plane runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from agents.controller.controller import Controller
from agents.controller.stores import backup, manifest
from agents.controller.stores.manifest import Manifest
from jobs.base.errors import InvalidInput
from jobs.store import audit
from jobs.store.writing import Caller
from jobs.wire.backupviews import BackupLine


async def back_up(
    controller: Controller, caller: Caller, dest: str | None, secrets: bool
) -> AsyncIterator[BackupLine]:
    """Says what is done, and in the end what was made. It goes on when nobody listens any more.

    Raises InvalidInput, Conflict, StorageFull.
    """
    now = controller.now()
    target = backup.default_place(controller.state, now) if dest is None else Path(dest)
    if not target.is_absolute() or ".." in target.parts:
        raise InvalidInput(f"{dest} is not an absolute path")
    await controller.db.write(
        lambda session: audit.append(
            session,
            at=now,
            user=caller.user,
            uid=caller.uid,
            action="backup",
            target=str(target),
            data={"secrets": secrets},
        )
    )
    said: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def say(text: str) -> None:
        loop.call_soon_threadsafe(said.put_nowait, text)

    work = asyncio.create_task(
        asyncio.to_thread(
            backup.make,
            controller.state,
            controller.database_url,
            target,
            secrets=secrets,
            now=now,
            say=say,
        )
    )

    def over(done: asyncio.Task[Manifest]) -> None:
        said.put_nowait("")
        if not done.cancelled():
            done.exception()  # whoever asked may have hung up

    work.add_done_callback(over)
    while text := await said.get():
        yield {"doing": text, "backup": None}
    yield {"doing": "", "backup": manifest.summary(target, await work)}
