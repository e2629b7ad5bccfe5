"""MLflow's REST API 2.0 for experiments, runs and what is in them: a function for each route.

Functions take a `Call` and give the answer's JSON. Routes are `METHOD path`, without `/api/2.0/mlflow/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from agents.node.tracking import checks, search, views
from agents.node.tracking.artifacts import FOLDER, Artifacts
from agents.node.tracking.checks import Args, items, text, whole, words
from agents.node.tracking.errors import invalid
from agents.node.tracking.models import Models
from agents.node.tracking.runs import Entry, Runs, now_ms
from agents.node.tracking.search import Facts

MAX_PAGE = 1000
MAX_HISTORY = 25_000

_STATES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
_NUMBERED = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}


@dataclass(frozen=True, slots=True)
class Call:
    """A request. `args` is its JSON body or its query, `body` the bytes of the former."""

    rank: int
    args: Args
    body: bytes
    runs: Runs
    models: Models
    artifacts: Artifacts


Handler = Callable[[Call], Entry]


# -- experiments ----------------------------------------------------------------------------------


def _experiment(call: Call, entry: Entry) -> Entry:
    return views.experiment(entry, call.runs.journal.of(f"experiment-tag {entry['id']}"))


def create_experiment(call: Call) -> Entry:
    name = text(call.args, "name", limit=500)
    if not name.strip() or not name.isprintable():
        raise invalid(f"Invalid experiment name: {name[:100]!r}")
    text(
        call.args, "artifact_location", default=""
    )  # artifacts go to the work folder, wherever it says
    tags = dict(checks.pair(item, "tag") for item in items(call.args, "tags", checks.MAX_TAGS))
    return {"experiment_id": call.runs.create_experiment(call.rank, name, tags)}


def get_experiment(call: Call) -> Entry:
    entry = call.runs.experiment(text(call.args, "experiment_id"))
    return {"experiment": _experiment(call, entry)}


def get_experiment_by_name(call: Call) -> Entry:
    entry = call.runs.experiment_named(call.rank, text(call.args, "experiment_name"))
    return {"experiment": _experiment(call, entry)}


def search_experiments(call: Call) -> Entry:
    clauses = search.parse(text(call.args, "filter", default=""))
    wanted = _stages(text(call.args, "view_type", default="ACTIVE_ONLY"))
    found: list[tuple[Entry, Facts]] = []
    for entry in reversed(call.runs.experiments().values()):
        view = _experiment(call, entry)
        tags = call.runs.journal.of(f"experiment-tag {entry['id']}")
        facts: Facts = {"attribute": view, "tag": tags}
        if entry["stage"] in wanted and all(clause.holds(facts) for clause in clauses):
            found.append((view, facts))
    shown, token = _cut(call, _ordered(call, found))
    return {"experiments": [view for view, _ in shown], **token}


def update_experiment(call: Call) -> Entry:
    number, name = text(call.args, "experiment_id"), text(call.args, "new_name", limit=500)
    call.runs.change_experiment(number, name=name)
    return {}


def delete_experiment(call: Call) -> Entry:
    call.runs.change_experiment(text(call.args, "experiment_id"), stage="deleted")
    return {}


def restore_experiment(call: Call) -> Entry:
    call.runs.change_experiment(text(call.args, "experiment_id"), stage="active")
    return {}


def set_experiment_tag(call: Call) -> Entry:
    number = call.runs.experiment(text(call.args, "experiment_id"))["id"]
    call.runs.journal.put((f"experiment-tag {number}", *checks.pair(call.args, "tag")))
    return {}


def delete_experiment_tag(call: Call) -> Entry:
    number = call.runs.experiment(text(call.args, "experiment_id"))["id"]
    call.runs.journal.put((f"experiment-tag {number}", checks.key(call.args, "tag"), None))
    return {}


# -- runs -----------------------------------------------------------------------------------------


def run_id(args: Args) -> str:
    """Which run is meant; older clients have another name for it. Raises Refused."""
    return text({"run_id": args.get("run_id") or args.get("run_uuid") or None}, "run_id")


def create_run(call: Call) -> Entry:
    args = call.args
    tags = dict(checks.pair(item, "tag") for item in items(args, "tags", checks.MAX_BATCH))
    given: Entry = {
        "experiment": text(args, "experiment_id", default="0"),
        "name": text(args, "run_name", default=""),
        "user": text(args, "user_id", default=""),
        "start": whole(args, "start_time", now_ms(), 0, 10**15),
    }
    if not given["name"].isprintable():
        raise invalid("Invalid run name: it has characters that cannot be printed")
    return {"run": views.run(call.runs, call.runs.create(call.rank, given, tags))}


def get_run(call: Call) -> Entry:
    return {"run": views.run(call.runs, call.runs.run(call.rank, run_id(call.args)))}


def update_run(call: Call) -> Entry:
    run = call.runs.run(call.rank, run_id(call.args))
    changes: Entry = {}
    if (status := call.args.get("status")) is not None:
        changes["status"] = _NUMBERED.get(str(status), status)
        if changes["status"] not in _STATES:
            raise invalid(f"Invalid value {str(status)[:50]} for parameter 'status' supplied")
    if call.args.get("end_time") is not None:
        changes["end"] = whole(call.args, "end_time", 0, 0, 10**15)
    if name := text(call.args, "run_name", default=""):
        changes["name"] = name
    return {"run_info": views.run_info(call.runs.change(run, **changes))}


def delete_run(call: Call) -> Entry:
    call.runs.change(call.runs.run(call.rank, run_id(call.args)), stage="deleted")
    return {}


def restore_run(call: Call) -> Entry:
    call.runs.change(call.runs.run(call.rank, run_id(call.args)), stage="active")
    return {}


def search_runs(call: Call) -> Entry:
    args = call.args
    wanted = set(words(args, "experiment_ids"))
    stages = _stages(text(args, "run_view_type", default="ACTIVE_ONLY"))
    clauses = search.parse(text(args, "filter", default=""))
    found: list[tuple[Entry, Facts]] = []
    for run in sorted(call.runs.all(call.rank), key=lambda run: (-run["start"], run["id"])):
        if run["stage"] in stages and (not wanted or run["experiment"] in wanted):
            facts = views.run_facts(call.runs, run)
            if all(clause.holds(facts) for clause in clauses):
                found.append((run, facts))
    shown, token = _cut(call, _ordered(call, found))
    return {"runs": [views.run(call.runs, run) for run, _ in shown], **token}


def log_metric(call: Call) -> Entry:
    run = call.runs.active(call.rank, run_id(call.args))
    call.runs.log(run, [checks.point(call.args)], (), (), call.body)
    return {}


def log_param(call: Call) -> Entry:
    run = call.runs.active(call.rank, run_id(call.args))
    call.runs.log(run, (), [checks.pair(call.args, "parameter")], (), b"")
    return {}


def set_tag(call: Call) -> Entry:
    run = call.runs.active(call.rank, run_id(call.args))
    call.runs.log(run, (), (), [checks.pair(call.args, "tag")], b"")
    return {}


def delete_tag(call: Call) -> Entry:
    run = call.runs.active(call.rank, run_id(call.args))
    call.runs.delete_tag(run, checks.key(call.args, "tag"))
    return {}


def log_batch(call: Call) -> Entry:
    args = call.args
    run = call.runs.active(call.rank, run_id(args))
    metrics = items(args, "metrics", checks.MAX_METRICS)
    params, tags = items(args, "params", checks.MAX_PARAMS), items(args, "tags", checks.MAX_TAGS)
    if len(metrics) + len(params) + len(tags) > checks.MAX_BATCH:
        raise invalid(f"A batch has {checks.MAX_BATCH} metrics, parameters and tags at most")
    call.runs.log(
        run,
        [checks.point(item) for item in metrics],
        [checks.pair(item, "parameter") for item in params],
        [checks.pair(item, "tag") for item in tags],
        call.body,
    )
    return {}


def log_inputs(call: Call) -> Entry:
    run = call.runs.active(call.rank, run_id(call.args))
    found = {}
    for item in items(call.args, "datasets", checks.MAX_BATCH):
        data = item.get("dataset")
        if not isinstance(data, dict):
            raise invalid("Missing value for required parameter 'datasets.dataset'.")
        key = f"{text(data, 'name', limit=500)} {text(data, 'digest', limit=100)}"
        found[key] = {"dataset": data, "tags": items(item, "tags", checks.MAX_TAGS)}
    call.runs.note("input", run, found)
    models = items(call.args, "models", checks.MAX_BATCH)
    call.runs.note("model-input", run, {text(item, "model_id"): item for item in models})
    return {}


def log_outputs(call: Call) -> Entry:
    run = call.runs.active(call.rank, run_id(call.args))
    models = items(call.args, "models", checks.MAX_BATCH)
    found = {f"{text(item, 'model_id')} {whole(item, 'step', 0)}": item for item in models}
    call.runs.note("output", run, found)
    return {}


def log_model(call: Call) -> Entry:
    run = call.runs.active(call.rank, run_id(call.args))
    call.runs.add_model_json(run, text(call.args, "model_json", limit=1 << 20))
    return {}


def get_history(call: Call) -> Entry:
    run = call.runs.run(call.rank, run_id(call.args))
    key = text(call.args, "metric_key", limit=checks.MAX_KEY)
    limit = whole(call.args, "max_results", MAX_HISTORY, 1, 10**9)
    start = whole(call.args, "page_token", 0, 0)
    limit = min(limit, MAX_HISTORY)
    points = call.runs.points(run).history(run["id"], key)
    found = [point.to_json() for point in islice(points, start, start + limit + 1)]
    more = {"next_page_token": str(start + limit)} if len(found) > limit else {}
    return {"metrics": found[:limit], **more}


def list_artifacts(call: Call) -> Entry:
    run = call.runs.run(call.rank, run_id(call.args))
    path = text(call.args, "path", default="").strip("/")
    found = call.artifacts.list(f"{folder_of(run)}/{path}")
    files = [{**item, "path": f"{path}/{item['path']}".lstrip("/")} for item in found]
    return {"root_uri": views.run_info(run)["artifact_uri"], "files": files}


def folder_of(run: Entry) -> str:
    """Where a run's artifacts are, below the work folder."""
    if run["prefix"]:
        return f"{FOLDER}-runs/{run['prefix'].rstrip('/')}"
    return f"{FOLDER}-rank-{run['rank']}" if run["rank"] else FOLDER


# -- helpers --------------------------------------------------------------------------------------


def _ordered(call: Call, found: list[tuple[Entry, Facts]]) -> list[tuple[Entry, Facts]]:
    """As `order_by` says; what lacks the value comes last."""
    for wish in reversed(words(call.args, "order_by")):
        value, descending = search.order(wish)
        known = [item for item in found if _orderly(value(item[1]))]
        known.sort(key=lambda item: value(item[1]), reverse=descending)
        found = known + [item for item in found if not _orderly(value(item[1]))]
    return found


def _orderly(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _stages(view: str) -> tuple[str, ...]:
    known = {"1": "ACTIVE_ONLY", "2": "DELETED_ONLY", "3": "ALL"}
    match known.get(view, view).upper():
        case "ACTIVE_ONLY":
            return ("active",)
        case "DELETED_ONLY":
            return ("deleted",)
        case "ALL":
            return ("active", "deleted")
    raise invalid(f"Invalid value {view[:50]} for parameter 'view_type' supplied")


def _cut(call: Call, found: list[Any]) -> tuple[list[Any], Entry]:
    limit = whole(call.args, "max_results", MAX_PAGE, 1, 50_000)
    start = whole(call.args, "page_token", 0, 0)
    limit = min(limit, MAX_PAGE)
    more = {"next_page_token": str(start + limit)} if len(found) > start + limit else {}
    return found[start : start + limit], more


ROUTES: Mapping[str, Handler] = {
    "POST experiments/create": create_experiment,
    "GET experiments/get": get_experiment,
    "GET experiments/get-by-name": get_experiment_by_name,
    "GET experiments/search": search_experiments,
    "POST experiments/search": search_experiments,
    "POST experiments/update": update_experiment,
    "POST experiments/delete": delete_experiment,
    "POST experiments/restore": restore_experiment,
    "POST experiments/set-experiment-tag": set_experiment_tag,
    "POST experiments/delete-experiment-tag": delete_experiment_tag,
    "POST runs/create": create_run,
    "GET runs/get": get_run,
    "POST runs/update": update_run,
    "POST runs/delete": delete_run,
    "POST runs/restore": restore_run,
    "POST runs/search": search_runs,
    "POST runs/log-metric": log_metric,
    "POST runs/log-parameter": log_param,
    "POST runs/set-tag": set_tag,
    "POST runs/delete-tag": delete_tag,
    "POST runs/log-batch": log_batch,
    "POST runs/log-inputs": log_inputs,
    "POST runs/outputs": log_outputs,
    "POST runs/log-model": log_model,
    "GET metrics/get-history": get_history,
    "GET artifacts/list": list_artifacts,
}
