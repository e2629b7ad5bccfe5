"""Hosts at the edge behind a real sshd on loopback: links that break, waves that fail, files that change."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlmodel import Session, select

from agents.controller.edge import pushes
from jobs.base.errors import Conflict, InvalidInput, NotAllowed, NotFound
from jobs.store.tables import AuditRow
from tests.agents.controller.conftest import Plane, until
from tests.agents.controller.services.test_models import approve, take_in, times
from tests.console import terminals

pytestmark = [
    pytest.mark.skipif(bool(terminals.sshd_missing()), reason=terminals.sshd_missing()),
    pytest.mark.timeout(600),
]

BIG = random.Random(7).randbytes(8 << 20)


class Link:
    """Between ssh and sshd: counts what goes there, and can be cut. `cut_at` cuts once so many bytes went."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent, self.down = 0, False
        self.cut_at: int | None = None
        self.on_cut: Callable[[], None] = lambda: None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            if self.down:
                return
            with socket.create_connection(("127.0.0.1", self._port)) as far:
                back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
                back.start()
                self._pump(near, far)
                back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        forth = source.getsockname()[1] == self.port
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 15):
                self.sent += len(data) * forth
                if self.cut_at is not None and self.sent > self.cut_at:
                    self.cut_at, self.down = None, True
                    self.on_cut()
                if self.down:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.down = True
        self._listener.close()


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """An sshd that is known as shop1, shop2 and shop3."""
    monkeypatch.setattr(pushes, "DELAYS", (0.1,))
    monkeypatch.setattr(pushes, "LOOK_AGAIN", 0.1)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    keys = tmp_path / "keys"
    keys.mkdir()
    with terminals.ssh_server(keys, "MaxStartups 100") as login:
        made = Link(int(login[login.index("-p") + 1]))
        kind, key, *_ = (keys / "host.pub").read_text().split()
        (keys / "known_hosts").write_text(f"shops {kind} {key}\n")
        (keys / "config").write_text(
            f"Host shop*\n  HostName 127.0.0.1\n  Port {made.port}\n  User {getpass.getuser()}\n"
            f"  HostKeyAlias shops\n  UserKnownHostsFile {keys}/known_hosts\n"
            f"  IdentityFile {keys}/user\n  IdentitiesOnly yes\n"
        )
        monkeypatch.setenv("QD_EDGE_SSH_CONFIG", str(keys / "config"))
        yield made
        made.close()


def kill_sessions() -> None:
    """What sshd has forked for connections."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("sshd") and process.parent() != psutil.Process():
                process.kill()


async def version(plane: Plane, factor: float, **more: bytes) -> str:
    ref = await take_in(plane, {"times.onnx": times(factor), **more})
    await approve(plane, ref)
    return ref


async def push(plane: Plane, ref: str, *hosts: str, **more: Any) -> Any:
    fleet = {"name": "shops", "hosts": list(hosts), **more}
    return await plane.post("/v1/edge", {"model": ref, "fleet": fleet})


async def over(plane: Plane, *phases: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        view: dict[str, Any] = await plane.get("/v1/edge/shops")
        return view if view["phase"] in phases else None

    for _ in range(
        2000
    ):  # each step is a process of ssh and one of sshd, which a busy machine makes slow
        if view := await look():
            return view
        await asyncio.sleep(0.1)
    raise AssertionError(plane.controller.edge.view("shops"))


def has(folder: Path) -> str:
    """The release that is used there."""
    link = folder / "current"
    return link.readlink().name if link.is_symlink() else ""


async def audit(plane: Plane) -> list[tuple[str, str]]:
    def read(session: Session) -> list[tuple[str, str]]:
        return [(row.action, row.target) for row in session.exec(select(AuditRow)).all()]

    rows = await plane.controller.db.read(read)
    return [row for row in rows if row[0].startswith("edge")]


async def test_a_link_that_breaks_and_a_controller_that_ends_resume(
    plane: Plane, link: Link, tmp_path: Path
) -> None:
    place = tmp_path / "far" / "my model"
    ref = await version(plane, 2, **{"sub/weights.bin": BIG, "empty.txt": b""})
    link.cut_at, link.on_cut = 4 << 20, kill_sessions
    await push(plane, ref, f"ssh://shop1{place}")

    async def stuck() -> bool:
        (host,) = (await plane.get("/v1/edge/shops"))["hosts"]
        return link.down and "not reached" in host["reason"]

    await until(stuck)
    (part,) = [one for one in (place / ".parts").iterdir() if one.stat().st_size > 1 << 20]
    assert has(place) == "" and part.stat().st_size < len(BIG)
    await plane.restart()
    link.down = False
    view = await over(plane, "done", "failed")
    assert view["phase"] == "done", view
    assert (place / "current" / "sub" / "weights.bin").read_bytes() == BIG
    assert (place / "current" / "times.onnx").read_bytes() == times(2)
    assert (place / "current" / "empty.txt").read_bytes() == b""
    assert link.sent < len(BIG) * 1.3, "what was there was not sent again"
    assert has(place) == "times-1.1"
    assert await audit(plane) == [
        (kind, "times:1@shops")
        for kind in ("edge.started", "edge.host.sent", "edge.host.switched", "edge.done")
    ]


async def test_a_wave_that_fails_stops_the_rest_and_returns(
    plane: Plane, link: Link, tmp_path: Path
) -> None:
    places = [tmp_path / name for name in ("one", "two", "three")]
    urls = [f"ssh://shop{number}{place}" for number, place in enumerate(places, 1)]
    more: dict[str, Any] = {
        "waves": [1, 2],
        "health": "test -f times.onnx && ! test -e ../../ill || { echo feverish; exit 5; }",
        "health_within": 0.5,
    }
    first, second = await version(plane, 2), await version(plane, 3)
    await push(plane, first, *urls, **more)
    await over(plane, "done")
    assert [has(place) for place in places] == ["times-1.1"] * 3
    (places[2] / "ill").write_text("")
    await push(plane, second, *urls, **more)
    view = await over(plane, "failed", "done")
    assert "its health command ended with 5: feverish" in view["reason"]
    assert [host["phase"] for host in view["hosts"]] == ["done", "returned", "failed"]
    assert [has(place) for place in places] == ["times-2.2", "times-1.1", "times-1.1"]
    await plane.restart()
    status = await plane.get("/v1/status")
    assert "feverish" in str(status["problems"])

    # What the hosts have, as they say themselves.
    (places[0] / "current" / "times.onnx").write_bytes(b"altered")
    (places[0] / "current" / "note.txt").write_text("")
    view = await plane.post("/v1/edge/shops/look")
    one, two, _ = (host["has"] for host in view["hosts"])
    assert one == {
        "version": "times:2", "release": "times-2.2", "altered": ["times.onnx"],
        "unknown": ["note.txt"], "drift": True, "error": "",
    }  # fmt: skip
    assert (two["version"], two["drift"]) == ("times:1", False)
    await plane.post("/v1/edge/shops/rollback")
    await over(plane, "returned")
    assert [has(place) for place in places] == ["times-1.1"] * 3
    with pytest.raises(Conflict, match="nothing to roll back"):
        await plane.post("/v1/edge/shops/rollback")
    link.down = True
    view = await plane.post("/v1/edge/shops/look")
    assert all(host["has"]["error"] and not host["has"]["drift"] for host in view["hosts"])


async def test_a_host_that_stays_away_fails(plane: Plane, link: Link, tmp_path: Path) -> None:
    link.down = True
    ref = await version(plane, 2)
    await push(plane, ref, f"ssh://shop1{tmp_path}/one", patience="1s")
    with pytest.raises(Conflict, match="gets times:1 already"):
        await push(plane, ref, f"ssh://shop1{tmp_path}/one")
    await asyncio.sleep(0)
    plane.clock.skip(10)
    view = await over(plane, "failed")
    assert "not reached" in view["reason"]
    assert not (tmp_path / "one").exists()


async def test_only_what_is_approved_and_only_hosts(plane: Plane, tmp_path: Path) -> None:
    ref = await take_in(plane, {"times.onnx": times(2)})
    with pytest.raises(NotAllowed, match="may not be deployed"):
        await push(plane, ref, f"ssh://shop1{tmp_path}/one")
    await approve(plane, ref)
    with pytest.raises(InvalidInput, match=r"hosts\[0\]"):
        await push(plane, ref, "ssh://-oProxyCommand=true/x")
    with pytest.raises(NotFound, match="no fleet 'shops'"):
        await plane.post("/v1/edge/shops/rollback")
    assert await plane.get("/v1/edge") == []
    assert [row[0] for row in await audit(plane)] == ["edge.push.refused"]
