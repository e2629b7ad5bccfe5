from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.text import cut, expand_tabs, last_state, neutralise, pad, width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("tabs\tstay", "tabs\tstay"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("a\r\nb", "a␍␊b"),
        ("\x9b31m", "\\x9b31m"),
        ("\x7f", "␡"),
        ("pay \u202eevil\u2066", "pay \\u202eevil\\u2066"),
        ("\ufeffbom", "\\ufeffbom"),
        ("\U000e0041", "\\U000e0041"),
        ("\udce9", "\\udce9"),
        ("naïve 日本 👩‍🚀", "naïve 日本 👩‍🚀"),
    ],
)
def test_neutralise(text: str, shown: str) -> None:
    assert neutralise(text) == shown


@given(st.text())
def test_neutralised_text_holds_nothing_a_terminal_acts_on(text: str) -> None:
    shown = neutralise(text)
    assert not any(ord(c) < 0x20 and c != "\t" for c in shown)
    assert not any(0x7F <= ord(c) < 0xA0 for c in shown)
    assert neutralise(shown) == shown


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("", 0), ("ｆ", 2)]
)
def test_width(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize(
    ("text", "columns", "result"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd…"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("ab", 1, "…"),
        ("ab", 0, ""),
    ],
)
def test_cut(text: str, columns: int, result: str) -> None:
    assert cut(text, columns) == result


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs"])), st.integers(0, 40))
def test_cut_and_padded_text_has_its_width(text: str, columns: int) -> None:
    short = cut(text, columns)
    assert width(short) <= columns
    assert width(pad(short, columns)) == columns


def test_pad_to_the_right() -> None:
    assert pad("日", 4, right=True) == "  日"


def test_tabs_end_at_their_stops() -> None:
    assert expand_tabs("a\tb\t日\tc", 4) == "a   b   日  c"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("loss 0.5\r", "loss 0.5"),
        ("\r  0%|\r 50%|##\r100%|####", "100%|####"),
        ("100%|####\rdone", "done|####"),  # what a terminal shows, if not what was meant
        ("100%|####\r\x1b[Kdone", "done"),
        ("100%|####\r\x1b[2K", ""),
        ("\r 76%|### |\r          \r{'loss': 1.9}", "{'loss': 1.9}"),
        ("\r  0%| 0/2\x1b[A\r        \r\x1b[A{'eval_loss': 1.8}", "{'eval_loss': 1.8}"),
        ("\r100%|####| 2/2\x1b[A\r          ", "100%|####| 2/2"),
        ("\r\x1b[32m  0%|\x1b[0m\r\x1b[32m 50%|\x1b[0m", "\x1b[32m 50%|\x1b[0m"),
        ("10%\b\b\b20%", "20%"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
    ],
)
def test_the_last_state_of_a_line_that_was_rewritten(line: str, shown: str) -> None:
    assert last_state(line) == shown
