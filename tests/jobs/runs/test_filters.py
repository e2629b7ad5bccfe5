"""The language of filters: what it reads, and what it refuses in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.base.errors import InvalidInput
from jobs.runs.filters import All, Any_, Condition, Not, key, parse


def test_it_binds_as_people_expect() -> None:
    found = parse('acc > 0.9 and not (param.lr <= 1e-2 or tag.team != "a b") or name ~ digits')
    assert found == Any_(
        (
            All(
                (
                    Condition("metric", "acc", ">", 0.9),
                    Not(
                        Any_(
                            (
                                Condition("param", "lr", "<=", 0.01),
                                Condition("tag", "team", "!=", "a b"),
                            )
                        )
                    ),
                )
            ),
            Condition("field", "name", "~", "digits"),
        )
    )


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("val/acc.top-1>=.5", Condition("metric", "val/acc.top-1", ">=", 0.5)),
        ("metric.name < 1", Condition("metric", "name", "<", 1.0)),
        ("params.opt == adam", Condition("param", "opt", "=", "adam")),
        ("param.n = '3'", Condition("param", "n", "=", "3")),
        (r'name = "a\"b\\c"', Condition("field", "name", "=", 'a"b\\c')),
        ("data.train = digits@3", Condition("data", "train", "=", "digits@3")),
        ("seed=7", Condition("field", "seed", "=", 7.0)),
        ("NOT state = failed", Not(Condition("field", "state", "=", "failed"))),
    ],
)
def test_conditions(text: str, condition: Condition | Not) -> None:
    assert parse(text) == condition


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected the name of a field"),
        ("acc", "a comparison of acc"),
        ("acc >", "a value"),
        ("acc > high", "compared with a number"),
        ("usr = jane", "compared with a number"),
        ("(acc > 1", "`)`"),
        ("acc > 1 acc > 2", "`and`, `or` or the end"),
        ("acc > 1)", "`and`, `or` or the end"),
        ("name < b", "cannot be"),
        ("acc ~ 1", "cannot be"),
        ('param."x = 1', "cannot read"),
        ("'param.a\"b' = 1", "no param can be called"),
        ("(" * 40 + "acc > 1" + ")" * 40, "parentheses deep"),
        ("acc > 1 and " * 300, "characters; allowed"),
    ],
)
def test_what_it_refuses(text: str, told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert told in caught.value.message


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except InvalidInput as error:
        assert error.message.startswith("filter: ")


def test_what_runs_can_be_sorted_by() -> None:
    assert key("param.lr").kind == "param"
    for text in ("name", "tag.team", "id"):
        with pytest.raises(InvalidInput):
            key(text)
