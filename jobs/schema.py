"""The JSON Schema of job files, by which editors complete and check them.

`python -m jobs.schema > docs/job.schema.json` writes the published copy; a test keeps it up to date.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from jobs.spec import JobSpec

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def job_schema() -> dict[str, Any]:
    """The schema of what may stand in a job file (not of the JSON that the API stores)."""
    schema = JobSpec.model_json_schema(mode="validation")
    schema["properties"]["name"].pop("default")  # it is derived, and "" is not a valid name
    for definition in schema["$defs"].values():
        definition["properties"].get("cpu", {}).pop("default", None)  # one for each process
    return {"$schema": _DIALECT, "title": "Quarterdeck job", **_without_titles(schema)}


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
    sys.stdout.write(json.dumps(job_schema(), indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
