"""What a version of a data set may be called."""

from __future__ import annotations

import pytest

from jobs.base.errors import InvalidInput
from jobs.data.names import DataRef, check_name, parse_ref


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("digits", DataRef("digits")),
        ("digits@3", DataRef("digits", 3)),
        ("digits@latest", DataRef("digits")),
        ("a.b-c_d@12", DataRef("a.b-c_d", 12)),
    ],
)
def test_references(text: str, ref: DataRef) -> None:
    assert parse_ref(text) == ref


@pytest.mark.parametrize(
    "text", ["", "@3", "a@0", "a@-1", "a@x", "../a", "a/b", "a@1@2", "a\0", "é"]
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_ref(text)
    with pytest.raises(InvalidInput):
        check_name(text)
