"""A backup checked, and laid out in a state folder; what was there is put aside, never deleted."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from urllib.parse import quote

from agents.controller.stores import auditheads, dumps, manifest, trust
from agents.controller.stores.auditheads import AuditHeads
from agents.controller.stores.backup import link_or_copy, look, reading, sync_folder
from agents.controller.stores.continuity import MarkFile
from agents.controller.stores.manifest import Manifest, Say
from jobs.base.disk import storage_full
from jobs.base.errors import Conflict
from jobs.base.names import job_name
from jobs.base.places import database_file
from jobs.base.times import rfc3339
from jobs.base.words import counted
from jobs.store import audit, migrations

MARK = "registry.mark"
_RESTORED = "restored"
"""A mark that no controller draws: the next one sees that its registry is another one."""
_UNSIGNED = "audit-heads.restored.jsonl"


def check(source: Path, say: Say) -> Manifest:
    """Look at all of a backup; changes nothing.

    Raises:
        NotFound: it is not one.
        InvalidInput: its manifest is damaged.
        Conflict: a file is not what it was, the audit log was changed, or a newer version made it.
    """
    found = manifest.read(source)
    if found["schema"] not in migrations.revisions():
        raise Conflict(
            f"the backup has schema {found['schema']}, which this version does not know "
            f"(it knows up to {migrations.head()})",
            f"It was made by Quarterdeck {found['quarterdeck']}: upgrade first. Nothing was changed.",
        )
    say(f"checking {counted(len(found['files']), 'file')}")
    manifest.check_files(source, found, say)
    if found["database"] == "sqlite":
        say("checking the audit log")
        _check_registry(source, found)
    return found


def _check_registry(source: Path, found: Manifest) -> None:
    registry = source / manifest.REGISTRY
    if look(registry) != (found["cluster"], found["schema"], found["audit"]):
        raise Conflict("the backup's registry does not match its manifest")
    known = auditheads.parse(_text(source / auditheads.FILE))
    with reading(registry) as session:
        verdict = audit.verify_all(session, [(head.id, head.hash) for head in known])
    if verdict.broken_at is not None:
        raise Conflict(
            f"the backup's audit log was changed: {verdict.reason}",
            "Nothing was changed here. Use another backup.",
        )


def lay_out(
    source: Path, found: Manifest, state: Path, url: str | None, now: float, say: Say
) -> Path | None:
    """Put a backup that was checked in a state folder that nobody uses; where the old state is now.

    All is copied first, beside; then the registry goes first and comes last, so that a controller that
    starts after a crash in between finds none, and says so.

    A dump of PostgreSQL goes into an empty database, in one transaction, before the folder is touched.

    Args:
        url: the database for a dump of PostgreSQL, None for an SQLite file.
        now: unix time.

    Raises:
        StorageFull: no room; nothing was changed.
        Conflict: the registry belongs on the other kind of database, the database is not empty, or a
            file has changed since it was checked.
        Unreachable: the database does not answer.
    """
    if (found["database"] == "sqlite") is not (url is None):
        raise Conflict(
            "the backup has an SQLite file, and this cluster's registry is on PostgreSQL"
            if url is not None
            else f"the backup's registry is a dump of PostgreSQL, {source / manifest.DUMP}",
            "Unset QD_DATABASE_URL to use it. Nothing was changed."
            if url is not None
            else "Set QD_DATABASE_URL to an empty database of PostgreSQL. Nothing was changed.",
        )
    ours = _same_keys(source, state)
    stamp = rfc3339(now).replace("-", "").replace(":", "").replace(".", "")
    draft, aside = state / f".restore-{stamp}", state / "backups" / f"before-restore-{stamp}"
    try:
        draft.mkdir(mode=0o700)
        _copy(source, found, draft, say)
        if url is not None:
            say("loading the registry with pg_restore")
            heads = _text(source / auditheads.FILE)
            dumps.load(url, source / manifest.DUMP, found, heads)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise storage_full("the backup cannot be copied", error, "Nothing was changed.") from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    if not ours and trust.KEY not in found["files"] and (draft / auditheads.FILE).exists():
        say("the audit log's checkpoints were signed by a key that the backup does not have:")
        say(f"they are in {_UNSIGNED}, and a new key begins anew")
        (draft / auditheads.FILE).rename(draft / _UNSIGNED)
    _swap(draft, state, aside, keep_secrets=ours and not found["secrets"])
    return aside if aside.exists() else None


def _swap(draft: Path, state: Path, aside: Path, *, keep_secrets: bool) -> None:
    new = draft / manifest.REGISTRY  # on PostgreSQL there is none
    _number_above(state, draft / "logs")
    registry = database_file(state)
    old = [registry.name, f"{registry.name}-wal", f"{registry.name}-shm"] if new.exists() else []
    old += ["blobs", "logs", auditheads.FILE, trust.FILE]
    if not keep_secrets:
        old += ["secrets", trust.KEY, f"{trust.KEY}.pub"]
    if (draft / "ray-token").exists():
        old.append("ray-token")
    present = [name for name in (*old, MARK) if os.path.lexists(state / name)]
    if present:
        aside.mkdir(mode=0o700, parents=True)
    if MARK in present:
        shutil.copy2(state / MARK, aside / MARK)
    MarkFile(state / MARK).write([_RESTORED])
    for name in present:
        if name != MARK:
            (state / name).rename(aside / name)
    for path in sorted(draft.iterdir()):
        if path.name != manifest.REGISTRY:
            path.rename(state / path.name)
    sync_folder(state)
    if new.exists():
        new.chmod(0o600)
        new.rename(state / "state.db")
    draft.rmdir()
    # The controller that begins with a registry that has a mark, and finds no file of marks beside it,
    # says that it was restored, and places nothing that may run still (docs/decisions/0019).
    (state / MARK).unlink()
    sync_folder(state)


def _number_above(state: Path, logs: Path) -> None:
    """Have the next controller give no number of a job or an attempt that was given before, though the
    registry in the backup does not know it: it looks at the names of the logs' folders."""
    known = [path for path in (state / "logs").glob("j*/*") if path.name.isdecimal()]
    for path in known:
        (logs / path.parent.name / path.name).mkdir(mode=0o700, parents=True, exist_ok=True)
    # Of what never got as far as a log. A registry that cannot be read says nothing.
    address = f"file:{quote(str(database_file(state)))}?mode=ro"
    with (
        contextlib.suppress(sqlite3.Error, OSError),
        contextlib.closing(sqlite3.connect(address, uri=True)) as registry,
    ):
        ((newest,),) = registry.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchall()
        given = registry.execute("SELECT job_id, max(number) FROM attempts GROUP BY job_id")
        for job, number in [*given, *([(newest, None)] if newest else [])]:
            folder = logs / job_name(job) / str(number) if number else logs / job_name(job)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _copy(source: Path, found: Manifest, draft: Path, say: Say) -> None:
    """Blobs may be linked, since they never change; the rest is written to later, and is copied."""
    names = sorted(found["files"].keys() - {manifest.DUMP})  # that one goes to the server
    for number, name in enumerate(names, 1):
        entry = found["files"][name]
        target = draft / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if name.startswith("blobs/"):
            link_or_copy(source / name, target)
        else:
            shutil.copyfile(source / name, target)
            target.chmod(0o600)
            if manifest.entry_of(target) != entry:
                raise Conflict(f"{name} has changed since it was checked", "Nothing was changed.")
        if number % 1_000 == 0:
            say(f"copied {number} of {len(names)} files")
    os.sync()


def _same_keys(source: Path, state: Path) -> bool:
    """Whether the control plane of the state folder is the one that signed the backup's checkpoints."""
    heads = auditheads.parse(_text(source / auditheads.FILE))
    if not heads or not (state / trust.KEY).is_file():
        return False
    return AuditHeads(state, trust.own_key(state)).ours(heads[-1])


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""
