"""What the console says, as plain values."""

from __future__ import annotations

import pytest

from console.tui.core.base import commands, table
from console.tui.core.base.bars import footer, footer_at, header
from console.tui.core.base.commands import Command, Refusal
from console.tui.core.base.filter import parse
from console.tui.core.base.link import Link
from console.tui.core.base.order import Order
from console.tui.core.base.world import World
from console.tui.core.cluster import cluster
from console.tui.core.cluster import queue as waiting
from console.tui.core.cluster.goto import complete
from console.tui.core.draw.format import coarse, moment, number, size, span
from console.tui.core.draw.glyphs import ASCII, UNICODE, Glyphs, block, load_tone
from console.tui.core.draw.lines import TONES, crop, fit, line, plain, width, window, wrap
from console.tui.core.draw.look import Look
from console.tui.core.jobs import folds, job, jobs
from console.tui.core.jobs.logs import Quiet
from console.tui.theme import styles
from tests.console.tui.fake_views import NOW, detail, events, node, nodes, rank
from tests.console.tui.fake_views import job as job_view
from tests.console.tui.fake_views import jobs as all_jobs


def world() -> World:
    return World(
        jobs={view["id"]: view for view in all_jobs()},
        nodes={view["name"]: view for view in nodes()},
        events=tuple(events()),
        ready=frozenset({"jobs", "nodes", "events"}),
    )


# Text ----------------------------------------------------------------------------------------------


def test_fit_pads_cuts_visibly_and_counts_wide_characters() -> None:
    assert fit("ab", 4) == "ab  "
    assert fit("ab", 4, right=True) == "  ab"
    assert fit("abcdef", 4) == "abc…"
    assert fit("长上下文", 5) == "长上…"
    assert fit("长上下文", 4) == "长 …"
    assert fit("abc", 0) == ""
    assert fit("a\x1b[2Jb", 20).startswith("a␛[2Jb")


def test_crop_keeps_columns_when_it_halves_a_wide_character() -> None:
    parts = line("ab", ("长c", "warn"))
    assert plain(crop(parts, 0, 3)) == "ab "
    assert plain(crop(parts, 3, 5)) == " c"
    assert crop(parts, 2, 3) == line(("长c", "warn"))
    assert width(parts) == 5


def test_wrap_breaks_at_spaces_and_chops_what_is_too_long() -> None:
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("abcdefgh", 3) == ["abc", "def", "gh"]
    assert wrap("", 5) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.42, "0.4s"),
        (12, "12s"),
        (192, "3m12"),
        (7440, "2h04"),
        (41 * 86400, "41d"),
        (-5, "0.0s"),
    ],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert span(seconds) == words


def test_other_figures() -> None:
    assert [size(v) for v in (None, 0, 999, 1024, 74 << 30, 5 << 40)] == [
        "-",
        "0B",
        "999B",
        "1.0K",
        "74G",
        "5.0T",
    ]
    assert [number(v) for v in (None, 0, 0.12345, 3e-4, 123456.0)] == [
        "-",
        "0",
        "0.1235",
        "3.0e-04",
        "1.2e+05",
    ]
    assert (coarse(59), coarse(61), coarse(7440)) == ("59s", "1m", "2h04")
    assert moment("2026-01-01T00:00:00Z") == 1767225600.0
    assert moment("nonsense") is None


def test_load_is_told_by_height_and_tone_alike() -> None:
    assert [block(v, UNICODE) for v in (-1, 0, 0.5, 1, 2)] == ["▁", "▁", "▅", "█", "█"]
    assert [load_tone(v) for v in (0, 19, 20, 99, 130)] == [
        "load0",
        "load0",
        "load1",
        "load4",
        "load4",
    ]


def test_every_tone_has_a_style_with_and_without_colour() -> None:
    assert set(styles({}, dark=True, colour=True)) == set(TONES)
    bare = styles({}, dark=True, colour=False)
    assert set(bare) == set(TONES)
    assert all(style.color is None and style.bgcolor is None for style in bare.values())


# Filter --------------------------------------------------------------------------------------------


def found(text: str) -> list[str]:
    known = {view["id"]: view for view in all_jobs()}
    return list(folds.listing(known, jobs.job_filter(text)).keys)


def test_filter_words_fields_numbers_and_inverse() -> None:
    assert found("user:mira state:running") == ["j424", "j412"]
    assert found("gpu>48 state:queued") == ["j431"]
    assert found("state:queued !starts") == ["j434", "j433", "j431"]
    assert found("restarts=1") == ["j412"]
    assert found("!user:mira !user:chen !user:sofia !user:otieno") == []
    assert found("PRETRAIN-7B") == ["j412"]


def test_a_filter_that_is_not_understood_says_so_and_hides_nothing() -> None:
    wrong = jobs.job_filter("colour:red")
    assert wrong.problem.startswith("no field 'colour'; there are id, name")
    assert len(found("colour:red")) == len(all_jobs())
    assert jobs.job_filter("gpu>many").problem == "'many' is not a number"
    assert len(found("user:")) == len(all_jobs())


def test_filter_compares_text_for_equality() -> None:
    made = parse("name=b", {"name": lambda row: row}, str)
    assert [row for row in ("a", "b", "bb") if made.matches(row)] == ["b"]


def test_live_jobs_come_first_newest_first() -> None:
    order = found("")
    assert order[:8] == ["j434", "j433", "j432", "j431", "j430", "j424", "j421", "j412"]
    assert order[8:11] == ["j429", "j428", "j427"]


# Tables --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [40, 78, 118, 198])
def test_columns_fit_their_width(cells: int) -> None:
    layout = table.arrange(jobs.COLUMNS, cells)
    assert sum(w + 1 for _, w in layout) <= max(cells, 47)
    assert [column.title for column, _ in layout][:3] == ["id", "state", "name"]
    row = table.row_line(job_view(434, "QUEUED", name="评估-长上下文"), layout, NOW, UNICODE)
    assert width(row) == 1 + sum(w + 1 for _, w in layout)


def test_less_important_columns_go_first() -> None:
    narrow = {column.title for column, _ in table.arrange(jobs.COLUMNS, 78)}
    wide = {column.title for column, _ in table.arrange(jobs.COLUMNS, 198)}
    assert {"on", "at"} <= wide - narrow
    assert "reason" in narrow


# Cluster -------------------------------------------------------------------------------------------


def test_each_gpu_is_counted_once() -> None:
    t = cluster.totals(world())
    assert (t.nodes, t.gpus) == (28, 224)
    assert t.busy + t.idle + t.draining + t.lost == t.gpus
    assert (t.busy, t.idle, t.draining, t.lost) == (184, 16, 16, 8)
    assert (t.waiting, t.running) == (5, 3)


def test_totals_say_simulated_and_fit_any_width() -> None:
    simulated = World(nodes={n["name"]: n for n in nodes(sim=True)}, ready=frozenset({"nodes"}))
    assert "224 GPU sim" in plain(cluster.totals_line(simulated, UNICODE, 200))
    for cells in (20, 80, 120):
        assert width(cluster.totals_line(world(), UNICODE, cells)) <= cells


def test_totals_before_anything_is_known() -> None:
    assert "waiting" in plain(cluster.totals_line(World(), UNICODE, 80))
    down = World(link=Link().on_cut("the control plane is not running", "Start it."))
    assert "not running" in plain(cluster.totals_line(down, UNICODE, 80))


def test_heat_cells_have_one_width_whatever_the_node() -> None:
    cpu_only = node(40, gpus=0)
    short = node(41, job="j1", gpus=2)
    lost, drained = node(42, state="LOST"), node(43, state="DRAINED")
    everyone = [cpu_only, short, lost, drained, node(3, job="j412")]
    for pane in (200, 20):
        cells = cluster.heat_cells(everyone, pane)
        drawn = [cluster.heat_cell(one, cells, "util", False, UNICODE) for one in everyone]
        assert {width(one) for one in drawn} == {cells.width}
    assert not cluster.heat_cells(everyone, 20).numbers


def test_a_heat_cell_says_number_height_and_colour() -> None:
    cells = cluster.heat_cells([node(3, job="j412")], 100)
    drawn = cluster.heat_cell(node(3, job="j412"), cells, "util", True, UNICODE)
    assert plain(drawn).startswith("▸n03 j412 97█92█95█31▃")
    assert ("31▃", "load1") in drawn
    assert "31-" in plain(cluster.heat_cell(node(3, job="j412"), cells, "util", False, ASCII))


def test_heat_metrics_and_what_was_not_measured() -> None:
    unit = node(5, job="j1")["gpus"][0]
    assert cluster.reading(unit, "temp") == (60.0, 50.0)
    assert cluster.reading(unit, "mem") == (87.5, 87.5)
    assert cluster.reading(unit, "watt") == pytest.approx((98.57, 98.57), abs=0.01)
    for metric, name in (
        ("util", "util"),
        ("mem", "mem_used"),
        ("temp", "temp"),
        ("watt", "power"),
    ):
        assert cluster.reading({**unit, name: None}, metric) is None  # type: ignore[misc]


def test_a_node_in_words() -> None:
    told = [
        plain(one)
        for one in cluster.node_lines(node(3, job="j412", sim=True), [], NOW, 60, 30, UNICODE)
    ]
    assert "READY" in told[0]
    assert any("31▃" in one and "power cap" in one and "sim" in one for one in told)
    assert cluster.node_title(node(3, job="j412", sim=True), UNICODE) == "n03 · H100x8 sim · j412"
    drained = cluster.node_lines(node(3, state="DRAINED"), [], NOW, 60, 30, UNICODE)
    assert any("ECC errors on GPU 2" in plain(one) for one in drained)


def test_the_queue_is_in_the_order_of_consideration_with_reasons() -> None:
    order = [one["id"] for one in waiting.queue(world())]
    assert order == ["j431", "j430", "j432", "j433", "j434", "j412", "j421", "j424"]
    told = plain(
        waiting.queue_line(job_view(432, "QUEUED", reason="starts next"), NOW, 90, UNICODE)
    )
    assert "starts next" in told
    for cells in (60, 90, 140):
        drawn = waiting.queue_line(
            job_view(434, "QUEUED", name="评估-长上下文"), NOW, cells, UNICODE
        )
        assert width(drawn) == max(cells, width(drawn) if cells < 60 else cells)


def test_natural_order() -> None:
    names = ["n10", "n2", "gpu-1", "n1"]
    assert sorted(names, key=cluster.natural) == ["gpu-1", "n1", "n2", "n10"]


# Commands ------------------------------------------------------------------------------------------


def test_commands_say_what_they_will_do() -> None:
    running = job_view(412, "RUNNING", ranks=16, gpus=16.0)
    asked = commands.cancel(running)
    assert isinstance(asked, Command)
    assert asked.question == f"Cancel j412 ({running['name']}) of {running['user']}?"
    assert "16 ranks on n01, n02 get SIGTERM" in asked.effects[0]
    assert isinstance(commands.cancel(job_view(1, "QUEUED")), Command)
    assert isinstance(commands.cancel(job_view(1, "FAILED")), Refusal)
    assert isinstance(commands.retry(job_view(1, "RUNNING")), Refusal)
    assert isinstance(commands.retry(job_view(1, "SUCCEEDED")), Refusal)
    again = commands.retry(job_view(1, "FAILED"))
    assert isinstance(again, Command)
    assert "attempt 2" in again.effects[0]


def test_drain_turns_round() -> None:
    assert commands.drain(node(1, job="j1")).verb == "drain"
    assert commands.drain(node(1, state="DRAINING")).verb == "undrain"
    assert commands.drain(node(1, state="DRAINED")).verb == "undrain"
    lifts = commands.drain(node(1, state="QUARANTINED"))
    assert (lifts.verb, lifts.dangerous) == ("undrain", True)


# Job -----------------------------------------------------------------------------------------------


def test_rank_cells_have_one_width_and_name_gpus_when_known() -> None:
    ranks = [rank(0), rank(9), rank(15, state="EXITED", signal="SIGKILL"), rank(3, exit_code=139)]
    cells = job.rank_cells(ranks, {"GPU-02-0": 0})
    drawn = [job.rank_cell(one, cells, {"GPU-02-0": 0}, None, False, UNICODE) for one in ranks]
    assert {width(one) for one in drawn} == {cells.width}
    assert "n02 g0" in plain(drawn[0])
    assert "kill" in plain(drawn[2])


def test_the_worst_rank_is_named() -> None:
    attempt = detail(job_view(412, "RUNNING"), 3)["attempts"][-1]
    quiet = Quiet()
    assert job.ranks_title(attempt, quiet, NOW, UNICODE) == "Ranks 3 · 3 running"
    quiet.wrote(0, NOW - 1)
    quiet.wrote(1, NOW - 300)
    assert job.ranks_title(attempt, quiet, NOW, UNICODE) == "Ranks 3 · r1 is quiet for 5m"
    failed = detail(job_view(407, "FAILED"), 16)["attempts"][-1]
    assert job.ranks_title(failed, quiet, NOW, UNICODE) == "Ranks 16 · r9 failed first"
    stopped = {**failed, "first_failure": None, "state": "CANCELLED"}
    assert job.ranks_title(stopped, quiet, NOW, UNICODE) == "Ranks 16 · cancelled"  # type: ignore[arg-type]


def test_attempts_tell_the_first_failure_and_its_last_lines() -> None:
    full = detail(job_view(412, "RUNNING"))
    told = "\n".join(plain(one) for one in job.attempt_lines(full, NOW, 60, UNICODE))
    assert told.rindex("j412.2") < told.rindex("j412.1")
    assert "rank 9 on n03 failed first: SIGKILL" in told
    assert "CUDA out of memory" in told


def test_summary_fits_and_tells_how_it_ended() -> None:
    told = job.summary(job_view(407, "FAILED"), NOW, 80, UNICODE)
    assert [width(one) <= 80 for one in told] == [True, True]
    assert "exit 1" in plain(told[0])
    assert "rank 3 on n07 exited with code 1" in plain(told[1])


def test_gpus_of_a_job_that_asked_for_none() -> None:
    assert "no GPU" in plain(job.gpu_lines(None, {}, Look(), (0, 1), 60, UNICODE)[0])


def test_ranges() -> None:
    assert job.ranges([7, 0, 1, 2, 3]) == "0-3, 7"
    assert job.ranges([]) == ""


def test_stacks_and_explanations_as_pages() -> None:
    told = job.stacks_lines({"id": "j1", "groups": [], "failed": {"9": "it ended"}}, 60, UNICODE)
    assert "r9 could not be read: it ended" in plain(told[0])
    assert "no stack" in plain(
        job.stacks_lines({"id": "j1", "groups": [], "failed": {}}, 60, UNICODE)[0]
    )


# Frame ---------------------------------------------------------------------------------------------


def test_the_header_keeps_its_badge_when_it_is_short() -> None:
    tabs = [("1", "Cluster"), ("2", "Jobs")]
    for cells in (30, 80, 200):
        made = header(
            ("Cluster",), tabs, "Cluster", Link("open", 9.0), 9.5, cells, UNICODE, read_only=True
        )
        assert "● live" in plain(made)
        assert "read-only" in plain(made)
        assert width(made) <= max(cells, 40)


def test_the_footer_shows_as_many_keys_as_fit() -> None:
    keys = [("c", "cancel"), ("r", "retry"), ("q", "quit")]
    assert plain(footer(keys, 12)) == " c cancel  …"
    helped = [*keys, ("?", "help")]
    assert plain(footer(helped, 21)) == " c cancel  … ? help "
    assert [footer_at(helped, 21, x) for x in (0, 10, 11, 12)] == [0, None, None, 3]
    assert plain(footer(keys, 80)).strip().endswith("q quit")
    assert [footer_at(keys, 80, x) for x in (0, 9, 10, 25, 79)] == [0, 0, 1, 2, None]


def test_goto_offers_the_best_match_first() -> None:
    names = [place.name for place in complete("412", world(), ["Cluster", "Jobs"])]
    assert names[0] == "j412"
    assert complete("n03", world(), [])[0].key == "node n03"
    assert complete("jo", world(), ["Cluster", "Jobs"])[0].key == "screen Jobs"
    assert any(place.name == "j412" for place in complete("pretrain-7b", world(), []))
    assert complete("nonsense", world(), []) == []


def test_a_line_that_goes_on_beyond_the_edge_says_so() -> None:
    whole = line("abc", ("defgh", "warn"))
    assert plain(window(whole, 0, 8, UNICODE)) == "abcdefgh"
    assert plain(window(whole, 0, 5, UNICODE)) == "abcd›"
    assert plain(window(whole, 2, 5, ASCII)) == "<def>"
    assert plain(window(whole, 3, 5, UNICODE)) == "‹efgh"
    assert plain(window(line("abc   "), 0, 3, UNICODE)) == "abc"  # spaces are no loss
    assert plain(window(line("长上下文"), 0, 5, UNICODE)) == "长上›"
    assert plain(cluster.facts_line([line("one"), line("two")], UNICODE, 8)) == " one …"


def test_the_arrow_stands_at_the_name_it_is_about() -> None:
    def cell(row: str, now: float, glyphs: Glyphs) -> tuple[str, str]:
        return row, ""

    names: tuple[table.Column[str], ...] = (
        table.Column("state", 9, cell),
        table.Column("gpus", 6, cell, right=True),
        table.Column("learning_rate", 8, cell),
    )
    layout = table.arrange(names, 30)
    for order, told in (
        (Order("state"), " state▴      gpus learnin… "),
        (Order("gpus", descending=True), " state       gpus▾learnin… "),
        (Order("learning_rate"), " state       gpus learnin…▴"),
    ):
        assert plain(table.head(layout, UNICODE, order)) == told
