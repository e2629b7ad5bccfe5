"""The folder that an image is built from: Containerfile, code, models, our helper, and a record of it all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jobs
from jobs.base.disk import cannot_write
from jobs.base.errors import Conflict
from jobs.exports.containerfile import Plan, containerfile, ignore_file
from jobs.exports.workload import SERVER, Workload
from jobs.snapshots.manifest import Manifest

RECORD = "export.json"
"""In a folder with this file, an export may replace what is there."""
_WORKER = Path(jobs.__file__).parents[1] / "agents" / "node" / "worker"
"""What ranks find on their path in a cluster: files, read as such."""
_ALWAYS = ("quarterdeck.py", "quarterdeck_ranks.py")
_WITH_A_MODEL = ("quarterdeck_features.py", SERVER)


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into the folder beside what follows from the workload.

    Attributes:
        manifest: of the work folder. sources: a file for each of its digests (hex).
        fetch: called with a name of `models:` and an empty folder, which it fills.
        record: for `export.json`.
    """

    manifest: Manifest = field(default_factory=Manifest)
    sources: Mapping[str, Path] = field(default_factory=dict)
    fetch: Callable[[str, Path], None] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)


def write(target: Path, workload: Workload, plan: Plan, contents: Contents) -> int:
    """Write the whole folder, or nothing of it; how many files it has.

    Raises Conflict when something else is there, and StorageFull or InvalidInput when it cannot be written.
    """
    if target.exists() and (
        not target.is_dir() or (any(target.iterdir()) and not (target / RECORD).is_file())
    ):
        raise Conflict(f"{target} is there, and is no export", "Give --out a new folder.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".qd-export-", dir=target.parent))
        try:
            _fill(draft, workload, plan, contents)
            draft.chmod(0o755)
            if target.exists():
                shutil.rmtree(target)
            draft.replace(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise cannot_write(target, error) from error
    return sum(path.is_file() for path in target.rglob("*"))


def _fill(folder: Path, workload: Workload, plan: Plan, contents: Contents) -> None:
    (folder / "Containerfile").write_text(containerfile(workload, plan))
    (folder / ".containerignore").write_text(ignore_file())
    if plan.requires is not None:
        (folder / "requirements.txt").write_text(plan.requires)
    _helper(folder / "quarterdeck", with_server=workload.ours)
    app = folder / "app"
    app.mkdir()
    for inner in contents.manifest.folders:
        (app / inner).mkdir(parents=True)
    for entry in contents.manifest.files:
        path = app / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.link is not None:
            path.symlink_to(entry.link)
        else:
            shutil.copyfile(contents.sources[entry.sha256], path)
            path.chmod(entry.mode)
    for name in workload.models:
        assert contents.fetch is not None
        place = folder / "models" / name
        place.mkdir(parents=True)
        contents.fetch(name, place)
    record = json.dumps(dict(contents.record), indent=2, sort_keys=True)
    (folder / RECORD).write_text(record + "\n")


def _helper(folder: Path, *, with_server: bool) -> None:
    """What of ours a program may import, and what starts ranks."""
    folder.mkdir()
    for name in (*_ALWAYS, *(_WITH_A_MODEL if with_server else ())):
        source = _WORKER / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, folder / name)
