"""Which of Ray's processes get its settings for TLS, and how a disagreement is noticed."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agents.fabric.ray import driver_environment
from agents.node.staging.environment import base_environment
from agents.supervisor import head, tls
from agents.supervisor.policy import Size
from jobs.base.errors import InvalidInput
from jobs.base.places import Places
from tests.certificates import issue


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that vouches for itself, with its key beside it."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = issue(1, "n")
    (folder / "crt").write_bytes(cert)
    (folder / "key").write_bytes(key)
    return folder / "crt"


@pytest.fixture
def settings(certificate: Path) -> dict[str, str]:
    key = certificate.with_name("key")
    files = zip(tls.FILES, (certificate, key, certificate), strict=True)
    return {tls.SWITCH: "1"} | {name: str(path) for name, path in files}


def test_head_worker_and_driver_get_the_same_and_ranks_nothing(
    where: Places, settings: dict[str, str]
) -> None:
    user = settings | {"RAY_ADDRESS": "elsewhere:1", "PATH": "/bin"}
    ours = head.environment(user, where, "n1", Size(1, 0, simulated=False), "10.0.0.1")
    for env in (ours, driver_environment(where, user)):
        assert {name: value for name, value in env.items() if "TLS" in name} == settings
        assert "RAY_ADDRESS" not in env
    assert not [name for name in base_environment(ours) if "TLS" in name]


@pytest.mark.parametrize("switch", ["", "0", "false"])
def test_it_is_off_unless_switched_on(settings: dict[str, str], switch: str) -> None:
    assert tls.variables(settings | {tls.SWITCH: switch}) == {}
    assert tls.check(settings | {tls.SWITCH: switch}) is False


@pytest.mark.parametrize("name", tls.FILES)
def test_a_file_that_is_missing_is_named(settings: dict[str, str], name: str) -> None:
    assert tls.check(settings) is True
    with pytest.raises(InvalidInput, match=f"{name} names no file that can be read: '/nowhere'"):
        tls.check(settings | {name: "/nowhere"})
    with pytest.raises(InvalidInput, match=name):
        tls.check({other: path for other, path in settings.items() if other != name})


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Answers one caller; gives the address."""
    threads: list[threading.Thread] = []

    def start(answer: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            with listener, listener.accept()[0] as caller, suppress(OSError):
                answer(caller)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("asks", [ssl.CERT_NONE, ssl.CERT_REQUIRED])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_head_with_tls_is_known_even_where_it_wants_a_certificate(
    serve: Callable[..., str], certificate: Path, asks: ssl.VerifyMode, version: ssl.TLSVersion
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key"))
    context.load_verify_locations(certificate)
    context.verify_mode = asks
    context.maximum_version = context.minimum_version = version

    def answer(caller: socket.socket) -> None:
        with context.wrap_socket(caller, server_side=True) as secure:
            secure.recv(1)

    found = tls.disagreement(serve(answer), on=False)
    assert "speaks TLS, and this host has it off" in found
    assert tls.disagreement(serve(answer), on=True) == ""


@pytest.mark.parametrize(
    "words", [b"", b"\0\0\x18\4\0\0\0\0\0\0\4\0\x3f\xff\xff\0\5\0\x3f\xff\xff"]
)
def test_a_head_without_it_is_known_by_what_it_says_instead(
    serve: Callable[..., str], words: bytes
) -> None:
    def answer(caller: socket.socket) -> None:
        caller.recv(4096)
        caller.sendall(words)  # HTTP/2's settings, or nothing at all

    assert "has it off" in tls.disagreement(serve(answer), on=True)
    assert tls.disagreement(serve(answer), on=False) == ""


def test_nobody_there_is_no_disagreement() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    assert tls.disagreement(address, on=True) == tls.disagreement(address, on=False) == ""
