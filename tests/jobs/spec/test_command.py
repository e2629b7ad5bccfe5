from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.base.errors import InvalidInput
from jobs.spec.command import NAME, Command, Scalar, as_text, derive_name, fill, places, shell_argv


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python train.py --epochs 5", "train"),
        ("python3.11 -m train.main --lr 1", "train.main"),
        ("torchrun --standalone a/b/train.py", "train"),
        ("CUDA=1 OMP_NUM_THREADS=2 uv run ./run.sh", "run"),
        ("echo hi | tee x", "echo"),
        (("python", "my train.py"), "my-train"),
        (("bash",), "bash"),
        ("'open quote", "open"),
        ("--- ***", "job"),
        ("# nothing", "job"),
        (("é",), "job"),
        ("x" * 100, "x" * 63),
    ],
)
def test_a_job_is_named_after_its_script(command: Command, name: str) -> None:
    assert derive_name(command) == name


@given(st.text() | st.lists(st.text()).map(tuple))
@settings(deadline=None)
def test_a_derived_name_is_always_valid(command: Command) -> None:
    assert NAME.fullmatch(derive_name(command))


def test_only_known_names_are_filled_and_other_braces_stay() -> None:
    command = "echo {lr} {other} {{lr}} ${lr} {} {a b} awk '{print}'"
    assert fill(command, {"lr": 0.1}) == "echo 0.1 {other} {{lr}} ${lr} {} {a b} awk '{print}'"
    assert places(command) == {"lr", "other", "print"}
    assert fill(("a={lr}", "{x}"), {"lr": "it's $X"}) == ("a=it's $X", "{x}")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), (1e-5, "1e-05"), (32, "32"), ("a b", "a b")]
)
def test_values_as_words(value: Scalar, text: str) -> None:
    assert as_text(value) == text


def test_a_value_that_cannot_be_quoted_is_refused() -> None:
    with pytest.raises(InvalidInput, match="command substitution"):
        fill('echo "$(prog {x})"', {"x": "; rm -rf /"})
    assert fill('echo "$(prog {x})"', {"x": "0.1"}) == 'echo "$(prog 0.1)"'


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12))
@settings(deadline=None, max_examples=25)
def test_no_value_becomes_shell_syntax(value: str) -> None:
    command = "printf '%s\\0' {x} \"{x}\" '{x}' \"'{x}'\" --x={x} \\\"{x}"
    filled = fill(command, {"x": value})
    assert isinstance(filled, str)
    output = subprocess.run(["/bin/sh", "-c", filled], capture_output=True, check=True).stdout
    expected = [value, value, value, f"'{value}'", f"--x={value}", f'"{value}']
    assert output.decode().split("\0")[:-1] == expected


@pytest.mark.parametrize(
    "command",
    ["python train.py --lr 1", " ./run 'a b' $HOME *.txt ", '"my program" -v', "~/bin/x", "a=1/b"],
)
def test_a_single_program_takes_the_shells_place(command: str) -> None:
    expected = command if command == "a=1/b" else f"exec {command.strip()}"
    assert shell_argv(command) == ["/bin/sh", "-c", expected]


@pytest.mark.parametrize(
    "command",
    [
        "a && b",
        "a | b",
        "a; b",
        "a\nb",
        "exit 3",
        "cd x",
        "exec a",
        "X=1 a",
        "(a)",
        "a > b",
        "",
        " ",
    ],
)
def test_what_needs_the_shell_is_left_to_it(command: str) -> None:
    assert shell_argv(command) == ["/bin/sh", "-c", command]


def test_a_program_in_the_shells_place_still_has_its_quotes_and_variables() -> None:
    done = subprocess.run(
        shell_argv("""env echo "$A" 'b  c'"""),
        env={"PATH": "/bin:/usr/bin", "A": "1 2"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"1 2 b  c\n"
