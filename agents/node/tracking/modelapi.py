"""MLflow's REST API 2.0 for logged models and registered ones. As `api.py`, with ids in some paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agents.node.tracking import checks, search, views
from agents.node.tracking.api import Call, Handler
from agents.node.tracking.checks import items, text, words
from agents.node.tracking.errors import invalid, missing
from agents.node.tracking.runs import Entry

_STATES = ("LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED")
_NUMBERED = {"1": _STATES[0], "2": _STATES[1], "3": _STATES[2]}


def _pairs(call: Call, name: str, what: str) -> dict[str, str]:
    return dict(checks.pair(item, what) for item in items(call.args, name, checks.MAX_BATCH))


# -- logged models --------------------------------------------------------------------------------


def create_model(call: Call) -> Entry:
    given = {
        "experiment": call.runs.experiment(text(call.args, "experiment_id", default="0"))["id"],
        "name": text(call.args, "name", default="", limit=250),
        "type": text(call.args, "model_type", default=""),
        "run": text(call.args, "source_run_id", default=""),
    }
    params, tags = _pairs(call, "params", "parameter"), _pairs(call, "tags", "tag")
    return {"model": views.logged_model(call.models.create(given, params, tags))}


def search_models(call: Call) -> Entry:
    wanted = set(words(call.args, "experiment_ids"))
    clauses = search.parse(text(call.args, "filter", default=""))
    found = []
    for model in call.models.all():
        facts = {
            "attribute": {**model, "model_id": model["id"], "source_run_id": model["run"]},
            "param": model["params"],
            "tag": model["tags"],
        }
        if (not wanted or model["experiment"] in wanted) and all(c.holds(facts) for c in clauses):
            found.append(views.logged_model(model))
    return {"models": found}


def get_model(call: Call, number: str) -> Entry:
    return {"model": views.logged_model(call.models.get(number))}


def finish_model(call: Call, number: str) -> Entry:
    status = str(call.args.get("status", ""))
    status = _NUMBERED.get(status, status)
    if status not in _STATES:
        raise invalid(f"Invalid value {status[:50]} for parameter 'status' supplied")
    return {"model": views.logged_model(call.models.change(number, status=status))}


def delete_model(call: Call, number: str) -> Entry:
    call.models.delete(number)
    return {}


def tag_model(call: Call, number: str) -> Entry:
    tags = {**call.models.get(number)["tags"], **_pairs(call, "tags", "tag")}
    return {"model": views.logged_model(call.models.change(number, tags=tags))}


def add_model_params(call: Call, number: str) -> Entry:
    params = {**call.models.get(number)["params"], **_pairs(call, "params", "parameter")}
    call.models.change(number, params=params)
    return {}


OF_MODEL: Mapping[str, Callable[[Call, str], Entry]] = {
    "GET ": get_model,
    "PATCH ": finish_model,
    "DELETE ": delete_model,
    "PATCH tags": tag_model,
    "POST params": add_model_params,
}
"""`METHOD what`, of `logged-models/ID/what`."""


# -- registered models ----------------------------------------------------------------------------


def _registered(call: Call, entry: Entry) -> Entry:
    return {"registered_model": views.registered(entry, call.models.versions(entry["name"]))}


def _version(call: Call, entry: Entry) -> Entry:
    aliases = call.models.registered(entry["name"])["aliases"]
    return {"model_version": views.version(entry, aliases)}


def create_registered(call: Call) -> Entry:
    tags = _pairs(call, "tags", "tag")
    return _registered(call, call.models.register(text(call.args, "name", limit=250), tags))


def get_registered(call: Call) -> Entry:
    return _registered(call, call.models.registered(text(call.args, "name")))


def search_registered(call: Call) -> Entry:
    clauses = search.parse(text(call.args, "filter", default=""))
    found = []
    for entry in call.models.all_registered():
        if all(clause.holds({"attribute": entry, "tag": entry["tags"]}) for clause in clauses):
            found.append(_registered(call, entry)["registered_model"])
    return {"registered_models": found}


def tag_registered(call: Call) -> Entry:
    name, (key, value) = text(call.args, "name"), checks.pair(call.args, "tag")
    call.models.change_registered(name, tags={**call.models.registered(name)["tags"], key: value})
    return {}


def latest_versions(call: Call) -> Entry:
    name = text(call.args, "name")
    call.models.registered(name)
    newest = call.models.versions(name)[-1:]
    return {"model_versions": [_version(call, entry)["model_version"] for entry in newest]}


def get_alias(call: Call) -> Entry:
    return _version(call, call.models.aliased(text(call.args, "name"), text(call.args, "alias")))


def set_alias(call: Call) -> Entry:
    name, alias = text(call.args, "name"), text(call.args, "alias", limit=250)
    number = call.models.version(name, str(call.args.get("version", "")))["number"]
    aliases = {**call.models.registered(name)["aliases"], alias: number}
    call.models.change_registered(name, aliases=aliases)
    return {}


def delete_alias(call: Call) -> Entry:
    name, alias = text(call.args, "name"), text(call.args, "alias")
    kept = {a: n for a, n in call.models.registered(name)["aliases"].items() if a != alias}
    call.models.change_registered(name, aliases=kept)
    return {}


def create_version(call: Call) -> Entry:
    given = {
        "source": text(call.args, "source"),
        "run": text(call.args, "run_id", default=""),
        "model": text(call.args, "model_id", default=""),
        "description": text(call.args, "description", default=""),
    }
    tags = _pairs(call, "tags", "tag")
    return _version(call, call.models.add_version(text(call.args, "name"), given, tags))


def _asked(call: Call) -> Entry:
    return call.models.version(text(call.args, "name"), str(call.args.get("version", "")))


def get_version(call: Call) -> Entry:
    return _version(call, _asked(call))


def download_uri(call: Call) -> Entry:
    source = _asked(call)["source"]
    if source.startswith("models:/m-"):
        model = call.models.get(source.removeprefix("models:/"))
        source = views.logged_model(model)["info"]["artifact_uri"]
    return {"artifact_uri": source}


def search_versions(call: Call) -> Entry:
    clauses = search.parse(text(call.args, "filter", default=""))
    found = []
    for model in call.models.all_registered():
        for entry in call.models.versions(model["name"]):
            facts = {
                "attribute": {**entry, "version": entry["number"], "run_id": entry["run"]},
                "tag": entry["tags"],
            }
            if all(clause.holds(facts) for clause in clauses):
                found.append(_version(call, entry)["model_version"])
    return {"model_versions": found}


def update_version(call: Call) -> Entry:
    entry = _asked(call)
    description = text(call.args, "description", default="")
    return _version(
        call, call.models.change_version(entry["name"], entry["number"], description=description)
    )


def tag_version(call: Call) -> Entry:
    entry, (key, value) = _asked(call), checks.pair(call.args, "tag")
    tags = {**entry["tags"], key: value}
    call.models.change_version(entry["name"], entry["number"], tags=tags)
    return {}


ROUTES: Mapping[str, Handler] = {
    "POST logged-models": create_model,
    "POST logged-models/search": search_models,
    "POST registered-models/create": create_registered,
    "GET registered-models/get": get_registered,
    "GET registered-models/search": search_registered,
    "POST registered-models/set-tag": tag_registered,
    "POST registered-models/get-latest-versions": latest_versions,
    "GET registered-models/get-latest-versions": latest_versions,
    "GET registered-models/alias": get_alias,
    "POST registered-models/alias": set_alias,
    "DELETE registered-models/alias": delete_alias,
    "POST model-versions/create": create_version,
    "GET model-versions/get": get_version,
    "GET model-versions/get-download-uri": download_uri,
    "GET model-versions/search": search_versions,
    "PATCH model-versions/update": update_version,
    "POST model-versions/set-tag": tag_version,
}


def of_model(method: str, path: str) -> Handler | None:
    """The function for a path with a logged model's id in it."""
    start, _, rest = path.partition("/")
    number, _, what = rest.partition("/")
    if start != "logged-models" or not number:
        return None
    if method == "DELETE" and what.startswith("tags/"):
        return lambda call: _untag(call, number, what.removeprefix("tags/"))
    found = OF_MODEL.get(f"{method} {what}")
    return None if found is None else lambda call: found(call, number)


def _untag(call: Call, number: str, key: str) -> Entry:
    tags = dict(call.models.get(number)["tags"])
    if key not in tags:
        raise missing(f"No tag with name: {key[:200]} in model with id {number}")
    del tags[key]
    call.models.change(number, tags=tags)
    return {}
