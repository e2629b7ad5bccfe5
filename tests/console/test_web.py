"""`qd web`: who may open it, and the console in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

chromium = pytest.importorskip(
    "tests.console.chromium", reason="qd web is an extra: pip install '.[web]'"
)
aiohttp = pytest.importorskip("aiohttp")
import psutil  # noqa: E402

from tests.bench.console import standin  # noqa: E402


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, int]]:
    """The address that `qd web` printed, over a stand-in for a controller; and its process id."""
    with standin() as home:
        command = [sys.executable, "-m", "console.cli.main", "web", "--json"]
        environ = {**os.environ, "QD_HOME": str(home), "TMUX": "/tmp/none,1,0"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True)
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"], process.pid
        finally:
            process.send_signal(signal.SIGINT)
            left = psutil.Process(process.pid).children(recursive=True)
            assert process.wait(10) == 0
            process.stdout.close()
            _, alive = psutil.wait_procs(left, timeout=5)
            assert not alive


async def status(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return int(answer.status)


async def test_nothing_is_answered_without_the_secret(served: tuple[str, int]) -> None:
    url, pid = served
    origin, secret = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/([\w-]{20,})/", url).groups()  # type: ignore[union-attr]
    assert await status(url) == 200
    assert await status(f"{url}static/js/textual.js") == 200
    for path in ("/", "/ws", "/static/js/textual.js", f"/{secret[:-1]}/", f"/x{secret}/", "/%2e/"):
        assert await status(origin + path) == 404
    words = psutil.Process(pid).cmdline()
    assert not [word for word in words if secret in word]  # ps shows them to everyone


async def test_it_listens_on_loopback_alone(served: tuple[str, int]) -> None:
    url, pid = served
    listening = [c for c in psutil.Process(pid).net_connections() if c.status == "LISTEN"]
    assert [(c.laddr.ip, c.laddr.port) for c in listening] == [
        ("127.0.0.1", int(url.split(":")[2].split("/")[0]))
    ]


async def test_the_page_tells_its_address_to_no_one(served: tuple[str, int]) -> None:
    async with aiohttp.ClientSession() as session, session.get(served[0]) as answer:
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        page = await answer.text()
    assert "Set-Cookie" not in answer.headers
    assert set(re.findall(r"(?:src|href)=\"(http[^\"]+)", page)) <= set(
        re.findall(rf"{re.escape(served[0])}[^\"]*", page)
    )


def test_a_port_that_is_taken_is_told(served: tuple[str, int], qd: Any) -> None:
    result = qd("web", "--port", served[0].split(":")[2].split("/")[0])
    assert result.code == 2
    assert "cannot listen on 127.0.0.1:" in result.err


@pytest.mark.skipif(chromium.executable() is None, reason="no Chromium is installed here")
async def test_the_console_works_in_chromium(served: tuple[str, int], tmp_path: Path) -> None:
    url, pid = served
    async with chromium.chromium(tmp_path, url.rsplit("/", 2)[0]) as page:
        await page.open(url)
        await page.wait_for("window.received.includes('n001')")
        await page.wait_for("document.querySelectorAll('.xterm-screen canvas').length > 0")
        await page.evaluate("window.received = ''")
        await page.type("2")
        await page.wait_for("window.received.includes('10000 jobs')")
        await page.type("y")  # reaches the clipboard of the browser
        await page.wait_for("navigator.clipboard.readText().then((text) => text === 'j10000')")
        assert psutil.Process(pid).children()
    deadline = time.monotonic() + 10
    while psutil.Process(pid).children():
        assert time.monotonic() < deadline, "the console outlives its page"
        await asyncio.sleep(0.05)
