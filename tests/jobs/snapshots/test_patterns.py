"""What a pattern of outputs means."""

from __future__ import annotations

import pytest

from jobs.snapshots.patterns import Pattern, below


@pytest.mark.parametrize(
    ("text", "meant", "not_meant"),
    [
        ("out/m.bin", ["out/m.bin", "out/m.bin/shard-0"], ["m.bin", "x/out/m.bin", "out/m.bin2"]),
        ("out", ["out", "out/a", "out/a/b"], ["outer/a", "x/out/a"]),
        ("out/", ["out/a", "out/a/b"], ["out", "outer/a"]),
        ("./out/**", ["out/a", "out/a/b"], ["out", "x/out/a"]),
        ("logs/version_*/", ["logs/version_3/metrics.csv"], ["logs/version_3", "logs/a/b"]),
        ("**/*.pt", ["a.pt", "x/y/a.pt"], ["a.ptx"]),
        ("*.onnx", ["m.onnx", "m.onnx/part"], ["out/m.onnx"]),
        ("run-[0-9]", ["run-3", "run-3/a"], ["run-x"]),
    ],
)
def test_matches(text: str, meant: list[str], not_meant: list[str]) -> None:
    pattern = Pattern.parse(text)
    assert [path for path in meant if not pattern.matches(path)] == []
    assert [path for path in not_meant if pattern.matches(path)] == []


@pytest.mark.parametrize("text", ["", "/etc", "../x", "a/../../b", ".", "a\0", "**/**/**/**/x"])
def test_what_could_lead_out_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        Pattern.parse(text)


def test_only_a_plain_path_can_be_one_file() -> None:
    assert Pattern.parse("./a//b").text == "a/b"
    assert Pattern.parse("a/b").is_plain
    assert not any(Pattern.parse(text).is_plain for text in ("a/", "*.pt", "a?", "[ab]"))


def test_a_path_within_an_output() -> None:
    assert below("out", "out/a/b") == below("out/", "out/a/b") == "a/b"
    assert below("out/**", "out/a") == "out/a"
    assert below("", "a") == "a"
