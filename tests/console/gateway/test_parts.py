"""Keys, limits and what is offered, without a network."""

from __future__ import annotations

from pathlib import Path

import asyncssh
import pytest

from console import guest
from console.cli.commands import every
from console.cli.program import build
from console.client import socket_here
from console.gateway import keys, offered, session
from console.gateway.gates import Gates, Limits
from jobs.base.errors import InvalidInput, NotAllowed
from jobs.base.places import places


def public() -> str:
    return asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()


def folder(tmp_path: Path, **files: str) -> Path:
    place = tmp_path / "keys"
    place.mkdir(mode=0o700)
    for name, text in files.items():
        (place / name).write_text(text)
    return place


def test_a_file_for_each_person(tmp_path: Path) -> None:
    place = folder(tmp_path, mira=f'# both of hers\n{public()}\nrole="operator" {public()}\n')
    (place / "chen.pub").write_text(public())
    (place / "chen.pub~").write_text(public())
    (place / ".hidden").write_text(public())
    found = keys.read(place)
    assert len(found.lines) == 3
    assert found.problems == ()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("role='operator' {key}", "no role"),
        ('role="king" {key}', "there is no role 'king'"),
        ('command="sh" {key}', "the option command is not known"),
        ("cert-authority {key}", "needs principals"),
        ("ssh-ed25519 AAAA", "No valid"),
        ("nonsense", "no public key"),
        ('role="admin"', "no public key"),
        ('role="viewer",role="admin" {key}', "twice"),
    ],
)
def test_a_line_that_is_wrong_lets_nobody_in(tmp_path: Path, line: str, why: str) -> None:
    found = keys.read(folder(tmp_path, mira=line.format(key=public())))
    assert found.authorized is None
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{tmp_path}/keys/mira:1: ")
    assert why in found.problems[0]


def test_in_one_file_each_line_names_its_person(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f'name="mira",role="admin" {public()}\n{public()}\n')
    path.chmod(0o600)
    found = keys.read(path)
    assert len(found.lines) == 1
    assert "cannot name a person" in found.problems[0]


def test_keys_that_others_may_write_are_no_keys(tmp_path: Path) -> None:
    place = folder(tmp_path, mira=public())
    (place / "mira").chmod(0o664)
    with pytest.raises(InvalidInput, match="others may write"):
        keys.read(place)
    with pytest.raises(InvalidInput, match="does not exist"):
        keys.read(tmp_path / "none")


def test_a_stamp_is_another_when_a_file_changes(tmp_path: Path) -> None:
    place = folder(tmp_path, mira=public(), chen=public())
    before = keys.stamp(place)
    assert keys.stamp(place) == before
    (place / "chen").unlink()
    assert keys.stamp(place) != before


def test_connections_that_have_not_logged_in_are_counted() -> None:
    gates = Gates(Limits(unknown=3, unknown_each=2))
    assert gates.arrive("a", 0) == gates.arrive("a", 0) == ""
    assert "from this address" in gates.arrive("a", 0)
    assert gates.arrive("b", 0) == ""
    assert "too many connections" in gates.arrive("c", 0)
    gates.leave("a")
    assert gates.arrive("c", 0) == ""


def test_failures_are_forgiven_one_by_one() -> None:
    gates = Gates(Limits(failures=2, forgiven=10))
    gates.failed("a", 0)
    gates.failed("a", 0)
    assert "failed logins" in gates.arrive("a", 1)
    assert gates.arrive("b", 1) == ""
    assert gates.arrive("a", 11) == ""


def test_sessions_are_counted_for_each_key_and_in_all() -> None:
    gates = Gates(Limits(sessions=3, sessions_each=2))
    assert gates.begin("k") == gates.begin("k") == ""
    assert "this key has 2" in gates.begin("k")
    assert gates.begin("l") == ""
    assert "the gateway has 3" in gates.begin("m")
    gates.end("k")
    assert gates.begin("m") == ""


def test_what_is_offered_is_there_and_acts_nowhere_here() -> None:
    assert every().keys() >= offered.OFFERED
    assert not [name for name in offered.OFFERED if every()[name].here]


def test_no_option_of_an_offered_command_names_a_file_that_nobody_thought_of() -> None:
    """Each of these is refused or confined (`console.guest`); a new one fails here until it is, too."""
    found = {
        f"{name} {'/'.join(parameter.opts)}"
        for name in offered.OFFERED
        for parameter in build(name.rpartition(" ")[2], every()[name]).params
        if "Path" in str(getattr(parameter, "type_descriptor", ""))
        or any(
            word in (getattr(parameter, "metavar", "") or "") for word in ("FILE", "PATH", "DIR")
        )
    }
    assert found == {
        "submit file",
        "submit --mount",  # of the nodes
        "submit --output",  # in the work folder, on the nodes
        "submit --workdir",
        "submit -f/--file",
        "sweep file",
        "files what",  # of the job
        "cat what",
        "profile --svg",  # confined
        "profile --speedscope",
        "profile --folded",
        "deploy --python",  # of the nodes
        "deploy --tls-cert",
        "deploy --tls-key",
        "audit --heads",
        "debug -o/--output",
        "model approve --key",
        "model reject --key",
        "export --all",  # refused to a guest
        "export sweep --output/-o",
    }


def test_a_guest_has_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert guest.inside(Path("/etc/passwd")) == Path("/etc/passwd")
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv(guest.FOLDER, str(own))
    assert guest.inside(own / "job.yaml") == own / "job.yaml"
    (own / "out").symlink_to("/etc")
    for path in (Path("/etc/passwd"), own / ".." / "x", own / "out" / "passwd", tmp_path):
        with pytest.raises(NotAllowed):
            guest.inside(path)
    with pytest.raises(NotAllowed):
        guest.refuse("this")


def test_the_words_of_a_command() -> None:
    assert session.words_of(None) == []
    assert session.words_of("qd jobs --name 'a b'") == ["jobs", "--name", "a b"]
    with pytest.raises(ValueError, match="quotation"):
        session.words_of("jobs 'x")


def test_a_client_sets_how_text_looks_and_nothing_else(tmp_path: Path) -> None:
    rooms = session.Rooms(tmp_path / "home", tmp_path / "run", tmp_path / "work")
    asked = {"COLORTERM": "truecolor", "PYTHONPATH": "/x", "QD_HOME": "/x", "LD_PRELOAD": "/x"}
    environ = rooms.environ(asked, "xterm")
    assert environ["COLORTERM"] == "truecolor"
    assert environ["TERM"] == "xterm"
    assert not {"PYTHONPATH", "QD_HOME", "LD_PRELOAD"} & environ.keys()


def test_a_guest_is_never_sent_to_the_machines_own_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session's socket is gone when its connection is; on the other they would be an admin."""
    machine = places({"QD_HOME": str(tmp_path / "machine")})
    machine.socket.parent.mkdir(parents=True)
    machine.socket.touch()
    monkeypatch.setattr("console.client.SYSTEM", machine)
    own = places({"QD_HOME": str(tmp_path / "own")})
    assert socket_here(own) == machine.socket
    monkeypatch.setenv(guest.FOLDER, str(tmp_path))
    assert socket_here(own) == own.socket
