"""Keys of attempts: what names them on nodes' disks."""

from __future__ import annotations

import pytest

from jobs.base.errors import InvalidInput
from jobs.base.names import AttemptKey, new_identity, parse_key


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("3f2a1c-j7.2", "3f2a1c-j7"),
        ("3f2a1c-j7-0123abcd.2-89abcdef", "3f2a1c-j7-0123abcd"),
        ("my-cluster-j7-0123abcd.2-89abcdef", "my-cluster-j7-0123abcd"),
    ],
)
def test_a_key_is_read_as_it_was_written(text: str, name: str) -> None:
    key = parse_key(text)
    assert str(key) == text
    assert (key.name, key.run) == (name, "j7.2")


@pytest.mark.parametrize(
    "text", ["", "j7.2", "c-j7", "c-j7.2-xyz", "../c-j7.2", "c-j7.2/..", "c-j7.2-"]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_key(text)


def test_no_restore_repeats_an_identity() -> None:
    keys = {str(AttemptKey("c", 1, 1, new_identity(), new_identity())) for _ in range(1000)}
    assert len(keys) == 1000
