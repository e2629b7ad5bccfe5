"""The registry: one list, and everything in it works."""

from __future__ import annotations

from collections import Counter

import pytest

from console.tui import actions
from console.tui.app import QuarterdeckApp
from console.tui.screens.alerts import AlertsScreen, AlertTable
from console.tui.screens.cluster import ClusterScreen
from console.tui.screens.compare import CompareScreen, Comparison
from console.tui.screens.data import DataScreen, DataTable
from console.tui.screens.deployments import DeploymentsScreen, DeploymentTable
from console.tui.screens.events import EventsScreen, Happenings
from console.tui.screens.fleet import Events, Heat, Queue, Util
from console.tui.screens.job import JobScreen, Ranks
from console.tui.screens.jobcharts import Gpus, Metrics
from console.tui.screens.jobfiles import Files
from console.tui.screens.jobs import JobsScreen, JobTable
from console.tui.screens.models import ModelsScreen, ModelTable
from console.tui.screens.pipeline import PipelineScreen, Steps
from console.tui.screens.pipelines import PipelinesScreen, PipelineTable, Schedules
from console.tui.screens.sweep import SweepScreen
from console.tui.screens.sweeppictures import (
    Contour,
    Edf,
    Front,
    History,
    Importance,
    Parallel,
    Race,
    Rank,
)
from console.tui.screens.sweeps import SweepsScreen, SweepTable
from console.tui.screens.sweeptable import Board, Trials
from console.tui.widgets.lines import LineView
from console.tui.widgets.logview import LogView

PLACES: dict[str, tuple[type, ...]] = {
    "app": (QuarterdeckApp,),
    "lines": (LineView,),
    "cluster": (ClusterScreen,),
    "heat": (Heat, ClusterScreen),
    "queue": (Queue, ClusterScreen),
    "events": (Events, ClusterScreen),
    "util": (Util, ClusterScreen),
    "table": (JobTable, JobsScreen),
    "job": (JobScreen,),
    "ranks": (Ranks, JobScreen),
    "files": (Files, JobScreen),
    "loglines": (LogView,),
    "metrics": (Metrics, JobScreen),
    "gpus": (Gpus, JobScreen),
    "happenings": (Happenings, EventsScreen),
    "events_screen": (EventsScreen,),
    "compare": (Comparison, CompareScreen),
    "sweeps": (SweepTable, SweepsScreen),
    "models": (ModelTable, ModelsScreen),
    "data": (DataTable, DataScreen),
    "deployments": (DeploymentTable, DeploymentsScreen),
    "pipelines": (PipelineTable, PipelinesScreen),
    "pipelines_screen": (PipelinesScreen,),
    "schedules": (Schedules, PipelinesScreen),
    "pipeline": (PipelineScreen,),
    "steps": (Steps, PipelineScreen),
    "alerts": (AlertTable, AlertsScreen),
    "sweep": (SweepScreen,),
    "board": (Board, SweepScreen),
    "trials": (Trials, SweepScreen),
    "race": (Race, SweepScreen),
    "history": (History, SweepScreen),
    "front": (Front, SweepScreen),
    "importance": (Importance, SweepScreen),
    "rank": (Rank, SweepScreen),
    "contour": (Contour, SweepScreen),
    "edf": (Edf, SweepScreen),
    "parallel": (Parallel, SweepScreen),
}


def test_what_a_nearer_key_means_is_not_told_twice() -> None:
    def told(*scopes: str) -> set[str]:
        return {action.id for action in actions.unshadowed(scopes)}

    assert "logs.save" in told("ranks", "job", "lines", "app")
    assert "logs.save" not in told("metrics", "job", "lines", "app")
    assert "pane.write" in told("metrics", "job", "lines", "app")


def test_ids_are_unique() -> None:
    assert max(Counter(action.id for action in actions.ACTIONS).values()) == 1


@pytest.mark.parametrize("action", actions.ACTIONS, ids=lambda action: action.id)
def test_every_action_has_its_method_wherever_it_works(action: actions.Action) -> None:
    for scope in action.scopes:
        assert any(hasattr(place, action.method) for place in (*PLACES[scope], QuarterdeckApp)), (
            scope
        )


@pytest.mark.parametrize(
    "scopes",
    [
        ("heat", "cluster"),
        ("queue", "cluster"),
        ("util", "cluster"),
        ("table",),
        ("ranks", "job"),
        ("metrics", "job"),
        ("gpus", "job"),
        ("job",),
        ("happenings", "events_screen"),
        ("compare",),
        ("sweeps",),
        ("models",),
        ("deployments",),
        ("pipelines", "pipelines_screen"),
        ("schedules", "pipelines_screen"),
        ("steps", "pipeline"),
        ("alerts",),
        ("trials", "sweep"),
        ("board", "sweep"),
        ("race", "sweep"),
        ("history", "sweep"),
        ("parallel", "sweep"),
    ],
)
def test_no_key_means_two_things_at_once(scopes: tuple[str, ...]) -> None:
    """A pane may take over a key on purpose: the strip of ranks takes the digits, a picture `w`, with which
    its screen saves something else, and a list that folds the keys that scroll sideways."""
    keys = Counter(
        key for action in actions.in_scopes((*scopes, "lines", "app")) for key in action.keys
    )
    twice = {key for key, count in keys.items() if count > 1}
    digits = set("123456789") if "ranks" in scopes else set()
    sideways = {"h", "l", "left", "right"} if "table" in scopes else set()
    drawn = {"w"} if set(actions.DRAWN) & set(scopes) else set()
    assert twice <= digits | sideways | drawn


def test_what_changes_the_cluster_is_off_in_a_read_only_console() -> None:
    left = {action.id for action in actions.allowed(actions.ACTIONS, read_only=True)}
    assert not left & {"job.cancel", "job.retry", "node.drain"}
    assert "job.explain" in left


def test_every_action_is_explained_or_shares_the_line_of_its_opposite() -> None:
    unexplained = [action.id for action in actions.ACTIONS if not action.help]
    shown = " ".join(action.show for action in actions.ACTIONS if action.help).split()
    assert all(actions.by_id(name).show in shown for name in unexplained)
