"""Alerts on a real control plane: events and conditions, a real mail server, a real HTTP sink."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlmodel import Session

from agents.controller.alerts import delivery
from agents.controller.alerts.delivery import message
from jobs.base.errors import NotFound
from jobs.life.lifecycle import Note
from jobs.store import alertwriting, writing
from jobs.store.alerttables import AlertNoteRow
from tests.agents.controller.conftest import Plane, until


@pytest.fixture
async def plane(make_plane: Any) -> Plane:
    made: Plane = await make_plane()
    return made


class Sink:
    """Takes messages as JSON over HTTP, or refuses them."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.refuse = False
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        body = await reader.readexactly(length)
        if not self.refuse:
            self.messages.append(json.loads(body))
        status = "503 Busy" if self.refuse else "200 OK"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        writer.close()

    @property
    def texts(self) -> list[str]:
        return [item["message"] for item in self.messages]


@asynccontextmanager
async def served(answer: Any) -> AsyncIterator[int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def rules(plane: Plane, text: str) -> None:
    (plane.root / "state" / "alerts.yaml").write_text(text)


async def happen(plane: Plane, *notes: Note) -> None:
    now = plane.controller.now()

    def write(session: Session) -> list[Any]:
        return list(writing.add_events(session, None, notes, now))

    for event in await plane.controller.db.write(write):
        plane.controller.hub.publish("events", str(event["id"]), event)


async def known(plane: Plane, channel: str) -> None:
    await until(lambda: channel in plane.controller.alerts._rules.channels)


async def test_an_event_is_told_and_so_is_its_end(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink()
    async with served(sink.answer) as port:
        rules(
            plane,
            f'channels: {{ops: {{url: "json://me:s3cret@127.0.0.1:{port}/", every: 0}}}}\n'
            "rules: {mine: {event: test.bad, until: test.good, severity: error}}\n",
        )
        await known(plane, "ops")
        await happen(plane, Note("test.bad", "x is bad", "error", node="n1"))
        await until(lambda: sink.messages)
        assert sink.texts == ["FIRING mine, n1: x is bad"]
        assert sink.messages[0]["type"] == "failure"
        [alert] = await plane.get("/v1/alerts")
        assert (alert["state"], alert["rule"], alert["node"]) == ("FIRING", "mine", "n1")
        acked = await plane.post(
            "/v1/alerts/ack", {"rule": "mine", "subject": "n1", "reason": "fan replaced"}
        )
        assert acked["acked_by"] and acked["acked_why"] == "fan replaced"
        assert acked["silence"] is None
        await happen(plane, Note("test.good", "x is well", node="n1"))
        await until(lambda: len(sink.messages) == 2)
        assert sink.texts[1] == "RESOLVED mine, n1: x is bad"
        assert (await plane.get("/v1/alerts"))[0]["state"] == "RESOLVED"
        assert await plane.get("/v1/alerts?over=false") == []
        tested = await plane.post("/v1/alerts/test", {})
        assert tested == [{"channel": "ops", "delivered": True}]
    with pytest.raises(NotFound, match="no channel 'none'"):
        await plane.post("/v1/alerts/test", {"channel": "none"})
    assert "s3cret" not in caplog.text
    assert "s3cret" not in json.dumps(await plane.get("/v1/status"))


async def test_a_storm_is_few_messages_and_loses_nothing(plane: Plane) -> None:
    sink = Sink()
    async with served(sink.answer) as port:
        rules(
            plane,
            f'channels: {{ops: {{url: "json://127.0.0.1:{port}/", every: 15}}}}\n'
            "rules: {mine: {event: test.bad, hold: 1d}}\n",
        )
        await known(plane, "ops")
        for batch in range(20):
            await happen(plane, *[
                Note("test.bad", "bad", "warning", node=f"n{batch * 100 + item}")
                for item in range(100)
            ])  # fmt: skip
        await until(
            lambda: plane.controller.alerts._event and len(plane.controller.alerts._alerts) >= 2000
        )
        plane.clock.skip(20)  # the channel takes the rest together

        async def all_sent() -> bool:
            return not await plane.controller.db.read(alertwriting.unsent)

        await until(all_sent)
        assert len(sink.messages) <= 5
        alerts = await plane.get("/v1/alerts")
        assert sum((a["rule"], a["state"]) == ("mine", "FIRING") for a in alerts) == 2000
        # The same again is told to nobody: each is known.
        count = len(sink.messages)
        await happen(plane, Note("test.bad", "bad", "warning", node="n1"))
        await asyncio.sleep(0.5)
        assert len(sink.messages) == count


async def test_what_a_channel_refuses_is_delivered_later_and_by_the_next_controller(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "RETRY_AFTER", 0.2)
    sink = Sink()
    sink.refuse = True
    async with served(sink.answer) as port:
        rules(
            plane,
            f'channels: {{ops: {{url: "json://127.0.0.1:{port}/?retry=0", every: 0}}}}\n'
            "rules: {mine: {event: test.bad}}\n",
        )
        await known(plane, "ops")
        await happen(plane, Note("test.bad", "bad", "warning", node="n1"))

        async def complained() -> bool:
            problems = (await plane.get("/v1/status"))["problems"]
            return any("alerts to ops: 1 note could not" in item["what"] for item in problems)

        await until(complained)
        await plane.restart()
        sink.refuse = False
        await until(lambda: sink.messages)
        assert sink.texts == ["FIRING mine, n1: bad"]

        async def well() -> bool:
            return not await complained()

        await until(well)


async def test_mail(plane: Plane) -> None:
    mails: list[str] = []

    async def smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink ESMTP\r\n")
        while line := (await reader.readline()).decode().strip():
            word = line.split()[0].upper()
            if word == "DATA":
                writer.write(b"354 go on\r\n")
                mails.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                writer.write(b"250 taken\r\n")
            elif word == "QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 sink\r\n")
            await writer.drain()
        writer.close()

    async with served(smtp) as port:
        url = f"mailto://example.org:{port}?smtp=127.0.0.1&from=qd@example.org&to=ops@example.org"
        rules(
            plane,
            f'channels: {{mail: "{url}&mode=insecure"}}\nrules: {{mine: {{event: test.bad}}}}\n',
        )
        await known(plane, "mail")
        await happen(plane, Note("test.bad", "the disk hums", "warning", node="n1"))
        await until(lambda: mails)
        [mail] = mails
        assert "To: ops@example.org" in mail
        assert "FIRING mine, n1: the disk hums" in mail.replace("=\r\n", "")


async def test_silence_and_a_bad_file(plane: Plane) -> None:
    rules(plane, "rules: {mine: {event: test.bad}}\nchannels: {none: 'json://127.0.0.1:9/'}\n")
    await known(plane, "none")
    view = await plane.post("/v1/alerts/silence", {"rule": "mi*", "seconds": 60})
    assert (view["rule"], view["subject"]) == ("mi*", "*")
    await happen(plane, Note("test.bad", "bad", "warning", node="n1"))

    async def firing() -> Any:
        return [a for a in await plane.get("/v1/alerts") if a["state"] == "FIRING"]

    [alert] = await until(firing)
    assert alert["told_at"] is None
    plane.now.offset += 61

    async def told() -> bool:
        return (await plane.get("/v1/alerts"))[0]["told_at"] is not None

    await until(told)
    assert await plane.get("/v1/alerts/silences") == []
    rules(plane, "rules: {mine: {evnt: x}}\n")

    async def complained() -> bool:
        problems = (await plane.get("/v1/status"))["problems"]
        return any("rules.mine.evnt: unknown field" in item["what"] for item in problems)

    await until(complained)
    assert "none" in plane.controller.alerts._rules.channels  # those from before hold


async def test_conditions_of_the_cluster(plane: Plane) -> None:
    plane.controller.complain("thing", "it is broken")
    looked = plane.controller.alerts._conditions(plane.clock(), plane.now())
    assert [(item.condition, item.subject) for item in looked if item.condition == "problem"] == [
        ("problem", "thing")
    ]
    plane.controller.complain("thing", "")


def test_a_message_has_a_bound() -> None:
    notes = [AlertNoteRow(channel="c", text=f"t{n}", severity="info", at=0.0) for n in range(50)]
    title, body = message(notes)
    assert title == "quarterdeck: 50 notes"
    assert body.splitlines()[-1] == "and 30 more; `qd alerts` lists them"
    assert message(notes[:1])[0] == "quarterdeck: t0"
    assert logging.getLogger("apprise") is not None
