"""A controller that hangs is ended; one that is slow, young or away is not."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from agents.supervisor.pulse import EVERY, SILENCE, Pulse, answers


def test_silence_counts_from_the_last_answer() -> None:
    said = [True]
    pulse = Pulse(lambda: said[0])
    pulse.started(0.0)
    assert not pulse.hangs(EVERY)
    said[0] = False
    now = EVERY
    while now < SILENCE + EVERY:
        now += EVERY
        assert not pulse.hangs(now)
    assert pulse.hangs(now + EVERY)


def test_an_answer_in_between_starts_the_count_anew() -> None:
    said = [True]
    pulse = Pulse(lambda: said[0])
    pulse.started(0.0)
    pulse.hangs(EVERY)
    said[0] = False
    pulse.hangs(SILENCE)
    said[0] = True
    pulse.hangs(SILENCE + EVERY)
    said[0] = False
    assert not pulse.hangs(2 * SILENCE)


def test_one_that_has_never_answered_is_given_time() -> None:
    pulse = Pulse(lambda: False)
    pulse.started(0.0)
    assert not pulse.hangs(100 * SILENCE)


def test_it_is_not_asked_all_the_time() -> None:
    asked: list[int] = []

    def check() -> bool:
        asked.append(1)
        return True

    pulse = Pulse(check)
    pulse.started(0.0)
    for tenth in range(200):
        pulse.hangs(tenth / 10)
    assert len(asked) == 3


def test_what_answers(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert not answers(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(100)
                client.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")

        server = threading.Thread(target=serve)
        server.start()
        assert answers(path)
        server.join()
