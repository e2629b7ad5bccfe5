from __future__ import annotations

import pytest

from jobs.access.roles import Role, check_person
from jobs.wire.introductions import Introduction


def test_each_role_may_what_those_before_it_may() -> None:
    assert Role.VIEWER < Role.OPERATOR < Role.APPROVER < Role.ADMIN


@pytest.mark.parametrize("role", Role)
def test_a_role_is_read_as_it_is_written(role: Role) -> None:
    assert Role.parse(str(role)) is role


def test_another_role_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="viewer, operator, approver, admin"):
        Role.parse("root")


@pytest.mark.parametrize("name", ["mira", "m.chen", "ann@example.org", "_svc", "x" * 64])
def test_names_of_people(name: str) -> None:
    assert check_person(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "root", "a b", "a\n", "x" * 65, "é"])
def test_what_cannot_name_a_person(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a person"):
        check_person(name)


def test_an_introduction_is_read_as_it_is_written() -> None:
    who = Introduction("mira", Role.OPERATOR)
    assert Introduction.read(who.line()) == who


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET /v1/status HTTP/1.1\r\n",
        b"[]",
        b"{}",
        b'{"user": "mira"}',
        b'{"user": "mira", "role": "king"}',
        b'{"user": "../x", "role": "viewer"}',
        b'{"user": "mira", "role": "viewer", "uid": 0}',
        b"\xff",
    ],
)
def test_what_is_no_introduction(line: bytes) -> None:
    with pytest.raises(ValueError):
        Introduction.read(line)
