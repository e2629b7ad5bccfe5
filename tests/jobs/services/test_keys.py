"""Rates, names and digests of API keys."""

from __future__ import annotations

import hashlib

import pytest

from jobs.base.errors import InvalidInput
from jobs.services.keys import Key, Policy, Rate, check_name, digest_of


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/s", Rate(100, 1)), ("600/min", Rate(600, 60)), (" 5/minute ", Rate(5, 60))],
)
def test_a_rate_is_read_and_written(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == Rate.parse(str(rate)) == rate


@pytest.mark.parametrize("text", ["", "5", "0/s", "-1/s", "5/h", "1.5/s", "99999999/s", "5/s; x"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="allowed: a rate such as"):
        Rate.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a;b", "-a", "a" * 64, "a\n"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_name(name)


def test_what_the_front_reads() -> None:
    assert digest_of("k") == hashlib.sha256(b"k").hexdigest()
    keys = (Key(1, "a"), Key(2, "b", Rate(5, 60)))
    assert Policy(True, keys).to_json() == {
        "keyed": True,
        "keys": {"a": {"id": 1}, "b": {"id": 2, "limit": 5, "seconds": 60}},
    }
    assert Policy(False, keys).to_json() == {"keyed": False, "keys": {}}
