"""A real Chromium without a window, driven over its DevTools protocol. No driver package is needed."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str | None:
    """Where it is installed; None where it is not."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


LISTEN = """
window.received = "";
const Plain = window.WebSocket;
window.WebSocket = function (...args) {
  const socket = new Plain(...args);
  socket.addEventListener("message", async (event) => {
    const data = event.data instanceof Blob ? await event.data.arrayBuffer() : event.data;
    window.received += typeof data === "string" ? data : new TextDecoder().decode(data);
  });
  return socket;
};
window.WebSocket.prototype = Plain.prototype;
"""
"""Keeps what the console sends, because a terminal that draws on a canvas has no text to read."""


class Page:
    """One page. Every method may raise RuntimeError with what the browser says."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            answer = await self._socket.receive_json(timeout=20)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    async def open(self, url: str) -> None:
        await self.call("Page.enable")
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=LISTEN)
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression, awaited when it is a promise."""
        done = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            raise RuntimeError(str(done["exceptionDetails"]))
        return done["result"].get("value")

    async def wait_for(self, expression: str, patience: float = 20.0) -> None:
        """Until an expression is true."""
        deadline = time.monotonic() + patience
        while not await self.evaluate(f"Boolean({expression})"):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {patience} s: {expression}")
            await asyncio.sleep(0.05)

    async def type(self, text: str) -> None:
        await self.evaluate("document.querySelector('.xterm-helper-textarea').focus()")
        for char in text:
            await self.call("Input.dispatchKeyEvent", type="char", text=char)


@asynccontextmanager
async def chromium(folder: Path, origin: str) -> AsyncIterator[Page]:
    """A fresh browser that keeps its things in `folder`, and may use the clipboard of `origin`."""
    program = executable()
    assert program is not None
    command = [
        program,
        "--headless=new",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "--window-size=1400,900",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "about:blank",
    ]
    if os.geteuid() == 0:
        command.insert(1, "--no-sandbox")  # it refuses to run as root otherwise
    silent = asyncio.subprocess.DEVNULL
    # Killed, it leaves a socket behind, whose path has to be short.
    temporary = tempfile.TemporaryDirectory(prefix="qdt-", dir="/tmp")
    environ = {**os.environ, "TMPDIR": temporary.name}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=silent, stderr=silent, env=environ
    )
    try:
        told = folder / "DevToolsActivePort"
        deadline = time.monotonic() + 20
        while not (told.exists() and told.read_text().count("\n")):
            assert time.monotonic() < deadline, "chromium does not start"
            await asyncio.sleep(0.05)
        port = told.read_text().split("\n")[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [one for one in await answer.json() if one["type"] == "page"]
            async with session.ws_connect(
                pages[0]["webSocketDebuggerUrl"], max_msg_size=0
            ) as socket:
                page = Page(socket)
                permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
                await page.call("Browser.grantPermissions", origin=origin, permissions=permissions)
                yield page
    finally:
        process.kill()
        await process.wait()
        temporary.cleanup()
