"""The JSON Schemas of job and sweep files, by which editors complete and check them.

`python -m jobs.sweeps.schema > docs/job.schema.json` writes the published copy,
`python -m jobs.sweeps.schema sweep > docs/sweep.schema.json` that of sweeps; tests keep them up to date.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from jobs.spec.job import JobSpec
from jobs.sweeps.spec import SweepSpec

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def job_schema() -> dict[str, Any]:
    """The schema of what may stand in a job file (not of the JSON that the API stores)."""
    schema = JobSpec.model_json_schema(mode="validation")
    _drop_derived(schema, schema["$defs"])
    return {"$schema": _DIALECT, "title": "Quarterdeck job", **_without_titles(schema)}


def sweep_schema() -> dict[str, Any]:
    """The schema of what may stand in a sweep file."""
    schema = SweepSpec.model_json_schema(mode="validation")
    _drop_derived(schema, schema["$defs"])
    _drop_derived(schema["$defs"]["JobSpec"], {})
    for name in ("objective", "sampler"):
        schema["properties"][name].pop("default", None)  # they follow from the job and each other
    several = schema["properties"]["objective"]
    one = several.pop("items")
    kept = {key: several.pop(key) for key in ("type", "maxItems")}
    several["anyOf"] = [one, {**kept, "items": one, "minItems": 1}]
    job = schema["properties"]["job"]
    inline = {"$ref": job.pop("$ref")}
    job["anyOf"] = [{"type": "string", "description": "a job file beside this one"}, inline]
    return {"$schema": _DIALECT, "title": "Quarterdeck sweep", **_without_titles(schema)}


def _drop_derived(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    schema["properties"]["name"].pop("default")  # it is derived, and "" is not a valid name
    for definition in definitions.values():
        definition.get("properties", {}).get("cpu", {}).pop("default", None)  # one for each process


def _without_titles(value: Any) -> Any:
    """Drop pydantic's generated titles ("Procs Per Node"): they repeat the names."""
    if isinstance(value, dict):
        return {
            key: _without_titles(item)
            for key, item in value.items()
            if not (key == "title" and isinstance(item, str))
        }
    if isinstance(value, list):
        return [_without_titles(item) for item in value]
    return value


def main() -> None:
    schema = sweep_schema() if sys.argv[1:] == ["sweep"] else job_schema()
    sys.stdout.write(json.dumps(schema, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
