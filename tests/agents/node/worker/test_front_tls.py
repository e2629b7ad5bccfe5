"""TLS at the front: a given certificate, its renewal under load, and files that do not fit."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.node.worker.quarterdeck_front.tls import ends_at
from tests.agents.node.worker.replicas import Replica
from tests.agents.node.worker.test_front_keys import ADA, keyed
from tests.certificates import Pair, connection, issue, shown
from tests.fronting import Front, until


@pytest.fixture
def replica() -> Iterator[Replica]:
    made = Replica("it")
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    made = Front(tmp_path)
    try:
        yield made
    finally:
        assert made.close() == 0


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    (tmp_path / "ssl").mkdir()
    return Pair(tmp_path / "ssl")


def certificate(front: Front) -> dict[str, Any]:
    found: dict[str, Any] = front.seen().get("certificates", {}).get("d1", {})
    return found


def ask(front: Front, pair: Pair) -> str:
    caller = connection(front.port, pair.cert)
    try:
        caller.request("GET", "/", headers={"X-API-Key": "ada", "Connection": "close"})
        return caller.getresponse().read().decode()
    finally:
        caller.close()


def test_a_certificate_is_shown_with_its_end_and_plain_requests_are_not_answered(
    front: Front, replica: Replica, pair: Pair, tmp_path: Path
) -> None:
    until(front.want([replica.address], [], 0, tls=pair.files))
    until(lambda: front.up("d1r1"))
    assert ask(front, pair) == "it"
    assert until(lambda: certificate(front).get("until")) == pytest.approx(
        time.time() + 90 * 86_400, abs=60
    )
    with pytest.raises((OSError, http.client.HTTPException)):
        plain = http.client.HTTPConnection("127.0.0.1", front.port, timeout=5)
        plain.request("GET", "/")
        plain.getresponse()
    context = ssl.create_default_context(cafile=str(pair.cert))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    old = http.client.HTTPSConnection("127.0.0.1", front.port, timeout=5, context=context)
    old.request("GET", "/", headers={"Connection": "close"})
    assert old.getresponse().status == 200
    old.close()
    # The private key is in its own file and in no other.
    secret = b"".join(pair.key.read_bytes().splitlines()[1:-1])
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != pair.key:
            assert secret[:60] not in path.read_bytes()
    os.kill(front.seen()["pid"], signal.SIGKILL)
    until(lambda: shown(front.port) == "first" if _listens(front.port) else False)
    assert ask(front, pair) == "it"


def _listens(port: int) -> bool:
    try:
        shown(port)
    except OSError:
        return False
    return True


def test_a_renewed_certificate_and_keys_that_change_fail_no_request(
    front: Front, replica: Replica, pair: Pair, tmp_path: Path
) -> None:
    """Requests over TLS with a key, on connections that stay and on new ones."""
    count = int(os.environ.get("QD_FRONT_REQUESTS", "600"))
    both = tmp_path / "both.pem"
    next_cert, next_key = issue(90, "second")
    both.write_bytes(pair.cert.read_bytes() + next_cert)
    until(front.want([replica.address], [], 0, tls=pair.files, **keyed(ADA)))
    until(lambda: front.up("d1r1"))
    told: Counter[str] = Counter()
    lock, going = threading.Lock(), True

    def call(stay: bool) -> None:
        caller = connection(front.port, both)
        while going or told.total() < count:
            try:
                caller.request("GET", "/", headers={"X-API-Key": "ada"})
                body = caller.getresponse().read().decode()
            except (OSError, http.client.HTTPException) as error:
                body = repr(error)
                caller.close()
            with lock:
                told[body] += 1
            if not stay:
                caller.close()
        caller.close()

    callers = [threading.Thread(target=call, args=(n % 2 == 0,)) for n in range(4)]
    for caller in callers:
        caller.start()
    try:
        until(lambda: told.total() > count / 10)
        bob = ("bob", {"id": 2})
        until(front.want([replica.address], [], 0, tls=pair.files, **keyed(ADA, bob)))
        # The key first: for a moment the pair does not fit, and the one before goes on.
        pair.key.write_bytes(next_key)
        assert "is not the private key" in until(lambda: certificate(front).get("error"))
        assert shown(front.port) == "first"
        pair.cert.write_bytes(next_cert)
        until(lambda: shown(front.port) == "second")
        until(front.want([replica.address], [], 0, tls=pair.files, **keyed(ADA)))
    finally:
        going = False
        for caller in callers:
            caller.join()
    assert told.keys() == {"it"}
    assert told.total() >= count
    assert until(lambda: certificate(front).get("error") == "")


@pytest.mark.parametrize("what", ["missing", "no certificate", "other key", "passphrase"])
def test_files_that_do_not_fit_are_said_and_never_mean_plain_http(
    front: Front, replica: Replica, pair: Pair, what: str
) -> None:
    if what == "missing":
        pair.cert.unlink()
    elif what == "no certificate":
        pair.cert.write_text("hello")
    elif what == "other key":
        pair.key.write_bytes(issue(1, "other")[1])
    else:
        pair.key.write_text(
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n"
        )
    until(front.want([replica.address], [], 0, tls=pair.files))
    error = until(lambda: certificate(front).get("error"))
    assert str(pair.cert if what != "other key" else pair.key) in error
    assert front.get() == "refused"
    pair.renew()
    until(lambda: _listens(front.port))
    assert shown(front.port) == "second"


def test_the_end_is_read_from_what_haproxy_says() -> None:
    text = "notBefore: Nov 28 12:00:00 2026 GMT\nnotAfter: Dec 28 12:00:00 2026 GMT"
    assert ends_at(f"Filename: x\nStatus: Used\n{text}") == 1798459200
    assert ends_at("notAfter: never") is None
    assert ends_at("") is None
