"""What models and versions may be called."""

from __future__ import annotations

import pytest

from jobs.base.errors import InvalidInput
from jobs.models.names import (
    MAX_TAG_VALUE,
    ModelRef,
    alias_name,
    check_tag,
    model_name,
    parse_ref,
    version_label,
)


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("digits", ModelRef("digits")),
        ("digits:last", ModelRef("digits")),
        ("digits:3", ModelRef("digits", number=3)),
        ("digits:1.4.0", ModelRef("digits", label="1.4.0")),
        ("digits:2.0.0-rc.1", ModelRef("digits", label="2.0.0-rc.1")),
        ("digits@production", ModelRef("digits", alias="production")),
        ("größe'; DROP TABLE models;--:2", ModelRef("größe'; DROP TABLE models;--", number=2)),
    ],
)
def test_a_version_is_named(text: str, ref: ModelRef) -> None:
    assert parse_ref(text) == ref
    assert parse_ref(str(ref)) == ref


@pytest.mark.parametrize(
    "text",
    ["", " digits", "digits:", "digits:0", "digits:1.2", "digits@", "digits@9", "a/b", "a\\b", "a\x1b[2J",
     "digits:1:2", "digits@a@b", "x" * 129, "a\nb", "digits:-1", "digits:01", "digits@last"],
)  # fmt: skip
def test_what_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_ref(text)


def test_two_ways_to_write_a_letter_are_one_name() -> None:
    assert model_name("gro\u0308ße") == model_name("größe") == "größe"


def test_labels_aliases_and_tags() -> None:
    assert version_label("1.0.0") == "1.0.0"
    assert alias_name("canary-eu") == "canary-eu"
    check_tag("a'b\"c", "x" * MAX_TAG_VALUE)
    for text in ("1.0", "v1.0.0", "1.0.0+build", "01.0.0"):
        with pytest.raises(InvalidInput):
            version_label(text)
    for key, value in (("", "x"), ("k", "x" * (MAX_TAG_VALUE + 1)), ("k", "\0"), ("k", "\ud800")):
        with pytest.raises(InvalidInput):
            check_tag(key, value)
