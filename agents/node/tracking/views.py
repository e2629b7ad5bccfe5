"""Entries in the JSON of MLflow's REST API 2.0."""

from __future__ import annotations

from collections.abc import Mapping

from agents.node.tracking.runs import Entry, Runs
from agents.node.tracking.search import Facts


def tags(found: Mapping[str, str]) -> list[Entry]:
    return [{"key": key, "value": value} for key, value in found.items()]


def experiment(entry: Entry, tagged: Mapping[str, str]) -> Entry:
    return {
        "experiment_id": entry["id"],
        "name": entry["name"],
        "artifact_location": f"mlflow-artifacts:/{entry['id']}",
        "lifecycle_stage": entry["stage"],
        "creation_time": entry["at"],
        "last_update_time": entry["changed"],
        "tags": tags(tagged),
    }


def run_info(run: Entry) -> Entry:
    info = {
        "run_id": run["id"],
        "run_uuid": run["id"],
        "run_name": run["name"],
        "experiment_id": run["experiment"],
        "user_id": run["user"],
        "status": run["status"],
        "start_time": run["start"],
        "artifact_uri": f"mlflow-artifacts:/{run['experiment']}/{run['id']}/artifacts",
        "lifecycle_stage": run["stage"],
    }
    if run["end"] is not None:
        info["end_time"] = run["end"]
    return info


def run(runs: Runs, entry: Entry) -> Entry:
    latest = runs.points(entry).latest(entry["id"]).values()
    return {
        "info": run_info(entry),
        "data": {
            "metrics": [point.to_json() for point in latest],
            "params": tags(runs.params(entry)),
            "tags": tags(runs.tags(entry)),
        },
        "inputs": {
            "dataset_inputs": runs.noted("input", entry),
            "model_inputs": runs.noted("model-input", entry),
        },
        "outputs": {"model_outputs": runs.noted("output", entry)},
    }


def run_facts(runs: Runs, entry: Entry) -> Facts:
    """What a search compares."""
    info = run_info(entry)
    latest = runs.points(entry).latest(entry["id"])
    return {
        "attribute": {**info, "artifact_location": info["artifact_uri"]},
        "metric": {key: point.value for key, point in latest.items()},
        "param": runs.params(entry),
        "tag": runs.tags(entry),
    }


def logged_model(model: Entry) -> Entry:
    return {
        "info": {
            "model_id": model["id"],
            "experiment_id": model["experiment"],
            "name": model["name"],
            "creation_timestamp_ms": model["at"],
            "last_updated_timestamp_ms": model["changed"],
            "artifact_uri": f"mlflow-artifacts:/{model['experiment']}/models/{model['id']}/artifacts",
            "status": model["status"],
            "model_type": model["type"],
            "source_run_id": model["run"],
            "tags": tags(model["tags"]),
            "registrations": [],
        },
        "data": {"params": tags(model["params"]), "metrics": []},
    }


def version(entry: Entry, aliases: Mapping[str, str]) -> Entry:
    return {
        "name": entry["name"],
        "version": entry["number"],
        "creation_timestamp": entry["at"],
        "last_updated_timestamp": entry["changed"],
        "current_stage": "None",
        "description": entry.get("description", ""),
        "source": entry["source"],
        "run_id": entry["run"],
        "model_id": entry["model"],
        "status": "READY",
        "tags": tags(entry["tags"]),
        "aliases": [alias for alias, number in aliases.items() if number == entry["number"]],
    }


def registered(entry: Entry, versions: list[Entry]) -> Entry:
    return {
        "name": entry["name"],
        "creation_timestamp": entry["at"],
        "last_updated_timestamp": entry["changed"],
        "description": entry.get("description", ""),
        "latest_versions": [version(item, entry["aliases"]) for item in versions[-1:]],
        "tags": tags(entry["tags"]),
        "aliases": [{"alias": a, "version": number} for a, number in entry["aliases"].items()],
    }
