from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.base.errors import InvalidInput
from jobs.spec import yamlfile
from jobs.spec.yamlfile import Mark, field_name, parse


def error(text: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse(text, "f.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-7", -7), ("0x1f", 31), ("0o17", 15), ("1.5", 1.5), ("1e-4", 1e-4), ("1E5", 1e5),
        (".5", 0.5), ("true", True), ("False", False), ("~", None), ("null", None), ("text", "text"),
        # What YAML 1.1 would turn into something else:
        ("010", "010"), ("12:30", "12:30"), ("1_000", "1_000"), ("2026-01-01", "2026-01-01"),
        ("0b11", "0b11"), ("y", "y"), ("=", "="), ("'1'", "1"), ('"true"', "true"), ("! 12", "12"),
    ],
)  # fmt: skip
def test_plain_words_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    result = parse(f"k: {text}").data["k"]
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "Yes", "NO", "On"])
def test_words_that_readers_disagree_on_must_be_quoted(word: str) -> None:
    assert error(f"a: 1\nenv:\n  X: {word}\n").message == (
        f"f.yaml:3: env.X: unquoted {word}, which YAML readers take for different things; "
        f'allowed: "{word}" in quotes, or true or false'
    )
    assert parse(f"X: '{word}'").data == {"X": word}
    assert parse(f"{word}: x").data == {word: "x"}


def test_a_document_knows_where_everything_stands() -> None:
    document = parse("a: 1\nb:\n  - x\n  - {c: 1.10}\n", "f.yaml")
    assert document.data == {"a": 1, "b": ["x", {"c": 1.1}]}
    assert document.where(("a",)) == Mark(1, 1)
    assert document.where(("b", 1)) == Mark(4, 5)
    assert document.where(("b", 1, "c")) == Mark(4, 6)
    assert document.where(("b", 1, "missing", "deeper")) == Mark(4, 5)
    assert document.where(("missing",)) == Mark(1, 1)
    assert document.values["b", 1, "c"] == Mark(4, 9)
    assert document.texts == {("a",): "1", ("b", 1, "c"): "1.10"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x", "f.yaml:1: anchor &x; allowed: no anchors or aliases"),
        ("b: *x", "f.yaml:1: alias *x; allowed: no anchors or aliases"),
        ("a: 1\nb: 2\na: 3", "f.yaml:3: 'a' is given twice (first on line 1)"),
        ("a: {b: 1, b: 1}", "f.yaml:1: 'b' is given twice (first on line 1)"),
        ("a: !!python/name:os.system x",
         "f.yaml:1: tag 'tag:yaml.org,2002:python/name:os.system'; allowed: plain YAML without tags"),
        ("a: !x {}", "f.yaml:1: tag '!x'; allowed: plain YAML without tags"),
        ("<<: {a: 1}", "f.yaml:1: merge key <<; allowed: each field written out"),
        ("? [a]\n: b", "f.yaml:1: a mapping or list as a key; allowed: text"),
        ("a: 1\n---\nb: 2", "f.yaml:2: a second document; allowed: one document a file"),
        ("a: 1\nb: x\0y", r"f.yaml:2: control character '\x00'; is this YAML?"),
        ("a: " + "9" * 50, "f.yaml:1: a: a number of 50 characters"),
        ('a: 1\nb: "\\UFFFFFFFF"', "f.yaml:2: not valid YAML: impossible number"),
        ("%YAML " + "9" * 5000 + ".1\n---\na", "f.yaml:1: not valid YAML: impossible number"),
        ('a: "\\ud800"', "f.yaml:1: half of a surrogate pair; allowed: text that UTF-8 can hold"),
        ("a:\n\t- b", "f.yaml:2: not valid YAML: found character '\\t' that cannot start any token; "
         "while scanning for the next token"),
        ("a: 'x", "f.yaml:1: not valid YAML: found unexpected end of stream; "
         "while scanning a quoted scalar"),
    ],
)  # fmt: skip
def test_each_fault_is_one_sentence_with_its_line(text: str, message: str) -> None:
    assert error(text).message == message


def test_facts_for_scripts() -> None:
    assert error("a: 1\na: 2").details == {
        "errors": [
            {
                "file": "f.yaml",
                "line": 2,
                "column": 1,
                "field": "",
                "message": "'a' is given twice (first on line 1)",
            }
        ]
    }


def test_common_slips_get_a_hint() -> None:
    assert "replace the tab" in error("a:\n\t- b").hint
    assert "Quote" in error("a: b: c").hint
    assert "Quote" in error("a: @b").hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("&a [" * 30, "anchor"),
        ("a: " + "[" * 500_000, "nested deeper than 20 levels"),
        ("{a: " * 100_000, "nested deeper than 20 levels"),
        ("- 1\n" * 200_000, "more than 10000 values"),
        ("[" + "1," * 500_000, "more than 10000 values"),
        ("a: " + "1" * 500_000, "a number of 500000 characters"),
    ],
    ids=["anchors", "lists", "mappings", "lines", "flow", "digits"],
)
def test_bombs_are_defused_early(text: str, words: str) -> None:
    assert words in error(text).message


def test_depth_twenty_is_still_fine() -> None:
    assert parse("[" * 20 + "]" * 20).data is not None


def test_an_empty_text_is_no_data() -> None:
    assert parse("").data is None
    assert parse("# only words\n").data is None


class TestLoad:
    def refused(self, path: Path) -> str:
        with pytest.raises(InvalidInput) as caught:
            yamlfile.load(path)
        return f"{caught.value.message} {caught.value.hint}".strip()

    def test_a_file_with_a_byte_order_mark_and_windows_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
        assert yamlfile.load(path).data == {"a": 1, "b": 2}

    def test_missing_names_the_other_suffix(self, tmp_path: Path) -> None:
        (tmp_path / "job.yml").touch()
        assert self.refused(tmp_path / "job.yaml").endswith("no such file There is job.yml.")
        assert self.refused(tmp_path / "x.yaml").endswith("no such file")

    def test_a_folder(self, tmp_path: Path) -> None:
        assert self.refused(tmp_path).endswith("is a folder; allowed: a YAML file")

    def test_binary_names_the_line(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"a: 1\nb: \xff\xfe")
        assert ":2: not text in UTF-8" in self.refused(tmp_path / "a")

    def test_too_large_is_not_read_to_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.touch()
        os.truncate(path, 2**40)  # sparse
        assert "larger than 1 MiB" in self.refused(path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_unreadable(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch(mode=0)
        assert "cannot be read" in self.refused(tmp_path / "a")


# Without line breaks and control characters, which PyYAML's writer does not keep.
_WORDS = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=10)
_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | _WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abcdeé", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_PLAIN)
@settings(deadline=None, max_examples=50)
def test_what_yaml_writes_reads_back(value: object) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    assert parse(text).data == value


@given(st.text("ab:-[]{}&*!|>'\"#%@`,? \n\t0.1~", max_size=40))
@settings(deadline=None)
def test_noise_is_data_or_one_error(text: str) -> None:
    try:
        parse(text, "f.yaml")
    except InvalidInput as caught:
        assert caught.message.startswith("f.yaml:")


def test_fields_are_named_as_people_write_them() -> None:
    assert field_name(("resources", "gpu")) == "resources.gpu"
    assert field_name(("command", 0)) == "command[0]"
    assert field_name(()) == ""
