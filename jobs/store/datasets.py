"""Reading and writing versions of data sets. Functions take an open Session and never commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlmodel import Session, func, select

from jobs.base.times import rfc3339
from jobs.data.names import DataRef
from jobs.store import audit, named
from jobs.store.datatables import DataVersionRow
from jobs.store.writing import Caller
from jobs.wire.dataviews import DataPin, DataVersionDetail, DataVersionView

MAX_ANCESTORS = 100
"""Versions that the lineage of one names."""


def add(
    session: Session,
    who: Caller,
    now: float,
    *,
    name: str,
    digest: str,
    files: int,
    size: int,
    file: str | None,
    source: str,
    note: str,
    profile: Mapping[str, Any] | None,
    lineage: Mapping[str, Any] | None = None,
) -> tuple[DataVersionRow, bool]:
    """The version of this content, and whether it is new: the same bytes are never two versions."""
    same = select(DataVersionRow).where(
        DataVersionRow.name == name, DataVersionRow.digest == digest
    )
    known = session.exec(same).first()
    if known is not None:
        return known, False
    newest = select(func.max(DataVersionRow.number)).where(DataVersionRow.name == name)
    row = DataVersionRow(
        name=name,
        number=(session.exec(newest).one() or 0) + 1,
        digest=digest,
        files=files,
        size=size,
        file=file,
        source=source,
        note=note,
        user=who.user,
        uid=who.uid,
        created_at=now,
        profile=dict(profile) if profile is not None else None,
        lineage=dict(lineage) if lineage is not None else None,
    )
    session.add(row)
    session.flush()
    audit.append(
        session,
        at=now,
        user=who.user,
        uid=who.uid,
        action="data.add",
        target=f"{row.name}@{row.number}",
        data={"digest": digest, "files": files, "size": size}
        | ({} if lineage is None else {"lineage": dict(lineage)}),
    )
    return row, True


def get(session: Session, ref: DataRef) -> DataVersionRow:
    """Raises NotFound, with the nearest name."""
    return named.get(
        session,
        DataVersionRow,
        ref.name,
        ref.number,
        none="there is no data set",
        make="`qd data add NAME PATH` makes one.",
    )


def newest(session: Session) -> list[tuple[DataVersionRow, int]]:
    """The newest version of each data set, by name, with how many versions it has."""
    return named.newest(session, DataVersionRow)


def versions(session: Session, name: str) -> list[DataVersionRow]:
    """All versions of a data set, newest first. Raises NotFound."""
    get(session, DataRef(name))
    return named.all_of(session, DataVersionRow, name)


def digests(session: Session) -> set[str]:
    """Manifests of all versions: what is never removed from the store."""
    return named.digests(session, DataVersionRow)


def pins(session: Session) -> dict[str, DataPin]:
    """Every version by what it is called, with what a node needs to bring it."""
    query = select(
        DataVersionRow.name, DataVersionRow.number, DataVersionRow.digest, DataVersionRow.file
    )
    return {
        f"{name}@{number}": DataPin(version=f"{name}@{number}", manifest=digest, file=file)
        for name, number, digest, file in session.exec(query).all()
    }


def ancestry(session: Session, data: Mapping[str, str]) -> dict[str, Any]:
    """What versions were made from, those that they were made from included: by version."""
    found: dict[str, Any] = {}
    todo = list(data.values())
    while todo and len(found) < MAX_ANCESTORS:
        version = todo.pop(0)
        name, _, number = version.partition("@")
        query = select(DataVersionRow).where(
            DataVersionRow.name == name,
            DataVersionRow.number == (int(number) if number.isdecimal() else 0),
        )
        row = session.exec(query).first()
        if row is None or row.lineage is None or version in found:
            continue
        found[version] = {key: row.lineage.get(key) for key in ("run", "data", "features")}
        todo += (row.lineage.get("data") or {}).values()
    return found


def pin(row: DataVersionRow) -> DataPin:
    return DataPin(version=f"{row.name}@{row.number}", manifest=row.digest, file=row.file)


def view(row: DataVersionRow, versions: int | None = None) -> DataVersionView:
    found = DataVersionView(
        id=f"{row.name}@{row.number}",
        name=row.name,
        version=row.number,
        digest=row.digest,
        files=row.files,
        bytes=row.size,
        file=row.file,
        source=row.source,
        note=row.note,
        user=row.user,
        created_at=rfc3339(row.created_at),
    )
    if row.profile is not None:
        found["rows"] = sum(table["rows"] for table in row.profile["tables"])
    return found if versions is None else {**found, "versions": versions}


def detail(row: DataVersionRow) -> DataVersionDetail:
    return {**view(row), "profile": row.profile, "lineage": row.lineage}
