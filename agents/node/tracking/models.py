"""Logged models of MLflow 3, and the names under which scripts register them.

A registration is recorded for the attempt alone: it can be loaded again there. What becomes a version of the
cluster's registry is for a person to say (`qd model register`).
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from agents.node.tracking.errors import Refused, exists, invalid, missing
from agents.node.tracking.runs import Entry, Runs, now_ms

MAX_MODELS = 1000

LATEST = "latest"


class Models:
    """One thread at a time. Methods raise Refused, and OSError when the disk takes nothing."""

    def __init__(self, runs: Runs) -> None:
        self._journal = runs.journal

    # -- logged models ------------------------------------------------------------------------------

    def create(self, given: Entry, params: dict[str, str], tags: dict[str, str]) -> Entry:
        """A model that is about to be stored. `given`: experiment, name, type, run."""
        known = self._journal.of("model")
        if len(known) >= MAX_MODELS:
            raise Refused(400, "RESOURCE_LIMIT_EXCEEDED", f"A job logs {MAX_MODELS} models at most")
        at = now_ms()
        name = given["name"] or "model"
        model = {
            **given,
            "name": name,
            "id": f"m-{uuid.uuid4().hex}",
            "folder": _free(name, {other["folder"] for other in known.values()}),
            "status": "LOGGED_MODEL_PENDING",
            "at": at,
            "changed": at,
            "params": params,
            "tags": tags,
        }
        self._journal.put(("model", model["id"], model))
        return model

    def get(self, number: str) -> Entry:
        found = self._journal.of("model").get(number)
        if found is None:
            raise missing(f"Logged model with ID '{number[:100]}' not found.")
        return dict(found)

    def change(self, number: str, **changes: Any) -> Entry:
        model = {**self.get(number), **changes, "changed": now_ms()}
        self._journal.put(("model", number, model))
        return model

    def delete(self, number: str) -> None:
        self.get(number)
        self._journal.put(("model", number, None))

    def all(self) -> list[Entry]:
        return list(self._journal.of("model").values())[::-1]

    # -- registered names ---------------------------------------------------------------------------

    def register(self, name: str, tags: dict[str, str]) -> Entry:
        if not name or "/" in name or ":" in name or not name.isprintable():
            raise invalid(f"Invalid model name: {name[:100]!r}")
        if name in self._journal.of("registered"):
            raise exists(f"Registered Model (name={name}) already exists.")
        if len(self._journal.of("registered")) >= MAX_MODELS:
            raise Refused(400, "RESOURCE_LIMIT_EXCEEDED", "Too many registered models")
        at = now_ms()
        entry = {"name": name, "at": at, "changed": at, "tags": tags, "aliases": {}}
        self._journal.put(("registered", name, entry))
        return entry

    def registered(self, name: str) -> Entry:
        found = self._journal.of("registered").get(name)
        if found is None:
            raise missing(
                f"Registered Model with name={name[:200]} not found. A job sees what it has registered"
                " itself; `data:` and `qd model pull` bring it versions of the cluster's registry."
            )
        return dict(found)

    def change_registered(self, name: str, **changes: Any) -> Entry:
        entry = {**self.registered(name), **changes, "changed": now_ms()}
        self._journal.put(("registered", name, entry))
        return entry

    def all_registered(self) -> list[Entry]:
        return list(self._journal.of("registered").values())

    def add_version(self, name: str, given: Entry, tags: dict[str, str]) -> Entry:
        """`given`: source, run, model."""
        self.registered(name)
        count = len(self.versions(name)) + 1
        at = now_ms()
        entry = {**given, "name": name, "number": str(count), "at": at, "changed": at, "tags": tags}
        if count > MAX_MODELS:
            raise Refused(400, "RESOURCE_LIMIT_EXCEEDED", f"'{name}' has too many versions")
        self._journal.put((f"version {name}", str(count), entry))
        return entry

    def version(self, name: str, number: str) -> Entry:
        found = self._journal.of(f"version {name}").get(number)
        if found is None:
            raise missing(f"Model Version (name={name[:200]}, version={number[:50]}) not found")
        return dict(found)

    def change_version(self, name: str, number: str, **changes: Any) -> Entry:
        entry = {**self.version(name, number), **changes, "changed": now_ms()}
        self._journal.put((f"version {name}", number, entry))
        return entry

    def versions(self, name: str) -> list[Entry]:
        return list(self._journal.of(f"version {name}").values())

    def aliased(self, name: str, alias: str) -> Entry:
        number = self.registered(name)["aliases"].get(alias)
        if number is None:
            raise missing(f"Registered model alias {alias[:100]} not found.")
        return self.version(name, number)


def _free(name: str, taken: set[str]) -> str:
    """A folder of its own for a model."""
    plain = re.sub(r"[^\w.\- ]", "_", name)[:80].strip(" .") or "model"
    count, found = 1, plain
    while found in taken:
        count += 1
        found = f"{plain}-{count}"
    return found
