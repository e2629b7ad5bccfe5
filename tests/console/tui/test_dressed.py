"""Log lines as they are read: levels, tracebacks, JSON, gaps; wrapping, folding and copying them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.tui.app import QuarterdeckApp
from console.tui.core.draw.lines import plain
from console.tui.core.jobs.dressed import Blocks, dressed, unpacked
from console.tui.core.jobs.logs import MergedLog, RankLog
from console.tui.memory import Memory
from console.tui.widgets.logview import LogView
from tests.console.tui.fakes import FakeSource
from tests.console.tui.pilots import press, running, settle

CRASH = """\
step 1
Traceback (most recent call last):
  File "train.py", line 9, in <module>
    main()
  File "train.py", line 5, in main
    step(3)
  File "model.py", line 77, in step
    raise ValueError("bad batch")
ValueError: bad batch
done
"""


def held(text: str) -> RankLog:
    log = RankLog()
    log.extend(0, text.encode(), len(text))
    return log


def tones(text: str) -> dict[str, str]:
    return {span.tone: span.text for span in dressed(text)}


@pytest.mark.parametrize(
    ("text", "tone", "part"),
    [
        ("2026-01-01 ERROR lost a shard", "error", "ERROR"),
        ("[W] WARNING: slow", "warn", "WARNING"),
        ("INFO epoch 3", "info", "INFO"),
        ("DEBUG shapes (3, 4)", "dim", "DEBUG shapes (3, 4)"),
        ("Traceback (most recent call last):", "error", "Traceback (most recent call last):"),
        ("torch.cuda.OutOfMemoryError: CUDA", "error", "torch.cuda.OutOfMemoryError: CUDA"),
        ('  File "a.py", line 3, in f', "warn", '  File "a.py", line 3, in f'),
        ("no errors here, 3 warnings", "", "no errors here, 3 warnings"),
        ("x" * 90 + " ERROR", "", "x" * 90 + " ERROR"),
    ],
)
def test_levels_and_tracebacks_have_their_tones(text: str, tone: str, part: str) -> None:
    assert tones(text)[tone] == part
    assert plain(dressed(text)) == text


def test_a_json_line_is_read_as_words() -> None:
    line = unpacked('{"ts": 12.5, "level": "error", "msg": "lost", "rank": 3, "at": {"n": "n1"}}')
    assert line is not None
    assert plain(line) == '12.5 error lost rank=3 at={"n": "n1"} '
    assert any(span.tone == "error" for span in line)
    for other in ("{}", "{broken", "[1]", "{'a': 1}", "step 3", "{" * 5000 + "}"):
        assert unpacked(other) is None


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.none()), min_size=1))
def test_what_json_hides_cannot_act_on_the_terminal(values: dict[str, Any]) -> None:
    line = unpacked(json.dumps(values))
    assert line is not None
    assert not {"\x1b", "\n", "\r", "\x9b", "\u202e"} & set(plain(line))


def test_of_a_traceback_the_header_the_last_frame_and_what_was_raised_stay() -> None:
    blocks = Blocks(held(CRASH))
    assert blocks.hidden_of(0) == range(0)
    for number in range(1, 9):
        assert blocks.hidden_of(number) == range(2, 6), number
    assert blocks.hidden_of(9) == range(0)


def test_a_short_traceback_hides_nothing_and_ranks_are_not_mixed() -> None:
    short = "\n".join([*CRASH.split("\n")[1:4], "ValueError: bad"])
    assert Blocks(held(short)).hidden_of(1) == range(0)
    merged = MergedLog()
    lines = CRASH.split("\n")
    said = [(0, lines[1]), (0, lines[2]), (1, "step 2"), (0, lines[3])]
    offset = 0
    for rank, text in said:
        merged.extend(
            [
                {
                    "attempt": 1,
                    "rank": rank,
                    "offset": offset,
                    "at": "2026-01-01T00:00:00Z",
                    "line": text,
                }
            ]
        )
        offset += 1000
    blocks = Blocks(merged)
    assert all(blocks.hidden_of(n) == range(0) for n in range(merged.first, merged.end))


def test_a_pause_between_lines_of_all_ranks_is_known() -> None:
    log = MergedLog()
    for offset, at in ((0, "00:00"), (2, "00:05"), (4, "02:15")):
        log.extend(
            [{"attempt": 1, "rank": 0, "offset": offset, "at": f"2026-01-01T00:{at}Z", "line": "x"}]
        )
    assert [log.gap(n) for n in range(3)] == [0.0, 5.0, 130.0]


def crashed(text: str = CRASH, steps: int = 3) -> FakeSource:
    source = FakeSource()
    steps_before = "".join(f"before {n}\n" for n in range(steps))
    source.logs = {r: (steps_before + text).encode() for r in range(16)}
    return source


def shown(app: QuarterdeckApp) -> list[str]:
    view = app.screen.query_one("#logs", LogView)
    top = view.scroll_offset.y
    return [plain(view.line_at(top + y)).rstrip() for y in range(view.content_size.height)]


async def opened(pilot: Any, app: QuarterdeckApp) -> LogView:
    await press(pilot, ">")
    app.screen.focus_pane("logs")  # type: ignore[attr-defined]
    await settle(pilot)
    return app.screen.query_one("#logs", LogView)


async def test_tracebacks_fold_and_unfold_and_it_is_remembered() -> None:
    memory = Memory()
    async with running(crashed(), start="j412", memory=memory) as (pilot, app):
        view = await opened(pilot, app)
        said = [line for line in shown(app) if line]
        assert "Traceback (most recent call last): 4 lines folded, z shows them" in said
        assert "ValueError: bad batch" in said and '  File "model.py", line 77, in step' in said
        assert not any("main()" in line for line in said)
        await press(pilot, "z")
        assert view.unfolded and any("main()" in line for line in shown(app))
    async with running(crashed(), start="j412", memory=memory) as (pilot, app):
        assert (await opened(pilot, app)).unfolded


async def test_what_is_found_in_a_fold_is_shown() -> None:
    async with running(crashed(), start="j412") as (pilot, app):
        await opened(pilot, app)
        await press(pilot, "slash", *"main()", "enter")
        assert any("main()" in line for line in shown(app))


async def test_long_lines_wrap_and_all_of_a_log_can_be_reached() -> None:
    text = "".join(f"{n:03d} " + "abcdefghi " * (n % 40) + "END\n" for n in range(120))
    async with running(crashed(text, 0), start="j412") as (pilot, app):
        view = await opened(pilot, app)
        assert shown(app)[-1].startswith("119 ")
        await press(pilot, "S")
        assert view.wrapped and view.following
        last = [line for line in shown(app) if line]
        assert last[-1].endswith("END"), "the end is in view"
        seen: list[str] = []
        await press(pilot, "g")
        for _ in range(140):
            seen += shown(app)
            view.do_move_down()
            await pilot.pause(0)
        starts = {line[:3] for line in seen if line[:3].isdigit()}
        assert len(starts) == 120, "no line is skipped"
        await press(pilot, "G")
        assert view.following
        for size in ((80, 24), (200, 50)):
            await pilot.resize_terminal(*size)
            await settle(pilot)
            assert [line for line in shown(app) if line][-1].endswith("END"), size


async def test_a_line_and_a_range_are_copied_as_they_were_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied: list[str] = []
    monkeypatch.setattr(QuarterdeckApp, "copy", lambda self, text: copied.append(text))
    async with running(crashed('{"msg": "a"}\nb\nc\nd\n'), start="j412") as (pilot, app):
        view = await opened(pilot, app)
        await press(pilot, "y")
        assert copied == ["d"]
        await press(pilot, "v", "k", "k", "k", "y")
        assert copied[1] == '{"msg": "a"}\nb\nc\nd'
        assert view._anchor is None
        await press(pilot, "v", "k", "escape")
        assert view._anchor is None and app.place == "j412", "esc ends the range only"
