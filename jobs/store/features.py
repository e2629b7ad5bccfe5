"""Reading and writing versions of features. Functions take an open Session and never commit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from sqlmodel import Session, col, func, select

from jobs.base.errors import NotFound
from jobs.base.times import rfc3339
from jobs.features.names import FeatureRef, parse_ref, pin_name
from jobs.store.featuretables import FeatureVersionRow
from jobs.store.writing import Caller
from jobs.wire.dataviews import DataPin
from jobs.wire.featureviews import FeatureVersionDetail, FeatureVersionView


def add(
    session: Session,
    who: Caller,
    now: float,
    *,
    name: str,
    digest: str,
    files: int,
    size: int,
    declaration: Mapping[str, Any],
    source: str,
    note: str,
) -> tuple[FeatureVersionRow, bool]:
    """The version of this content, and whether it is new: the same files are never two versions."""
    same = select(FeatureVersionRow).where(
        FeatureVersionRow.name == name, FeatureVersionRow.digest == digest
    )
    known = session.exec(same).first()
    if known is not None:
        return known, False
    newest = select(func.max(FeatureVersionRow.number)).where(FeatureVersionRow.name == name)
    row = FeatureVersionRow(
        name=name,
        number=(session.exec(newest).one() or 0) + 1,
        digest=digest,
        files=files,
        size=size,
        declaration=dict(declaration),
        source=source,
        note=note,
        user=who.user,
        uid=who.uid,
        created_at=now,
    )
    session.add(row)
    session.flush()
    return row, True


def get(session: Session, ref: FeatureRef) -> FeatureVersionRow:
    """Raises NotFound, with the nearest name."""
    query = select(FeatureVersionRow).where(FeatureVersionRow.name == ref.name)
    if ref.number is not None:
        query = query.where(FeatureVersionRow.number == ref.number)
    row = session.exec(query.order_by(col(FeatureVersionRow.number).desc()).limit(1)).first()
    if row is not None:
        return row
    names = list(session.exec(select(FeatureVersionRow.name).distinct()).all())
    if ref.name in names:
        newest = get(session, FeatureRef(ref.name)).number
        raise NotFound(f"there is no {ref}", f"The newest version is {ref.name}@{newest}.")
    near = difflib.get_close_matches(ref.name, names, 1)
    hint = f"Did you mean {near[0]}?" if near else "`qd features add NAME FILE` makes them."
    raise NotFound(f"there are no features {ref.name}", hint)


def named(session: Session, version: str | None) -> dict[str, str] | None:
    """What the lineage of a run says of the features that it names, by their exact version."""
    if version is None:
        return None
    row = get(session, parse_ref(version))
    return {"version": f"{row.name}@{row.number}", "digest": row.digest}


def newest(session: Session) -> list[tuple[FeatureVersionRow, int]]:
    """The newest version of each, by name, with how many versions it has."""
    counts = (
        select(
            col(FeatureVersionRow.name).label("name"),
            func.max(FeatureVersionRow.number).label("number"),
            func.count().label("versions"),
        )
        .group_by(col(FeatureVersionRow.name))
        .subquery()
    )
    rows = session.exec(
        select(FeatureVersionRow, counts.c.versions)
        .join(
            counts,
            (counts.c.name == col(FeatureVersionRow.name))
            & (counts.c.number == col(FeatureVersionRow.number)),
        )
        .order_by(col(FeatureVersionRow.name))
    ).all()
    return [(row, versions) for row, versions in rows]


def versions(session: Session, name: str) -> list[FeatureVersionRow]:
    """All versions of some features, newest first. Raises NotFound."""
    get(session, FeatureRef(name))
    query = select(FeatureVersionRow).where(FeatureVersionRow.name == name)
    return list(session.exec(query.order_by(col(FeatureVersionRow.number).desc())).all())


def digests(session: Session) -> set[str]:
    """Manifests of all versions: what is never removed from the store."""
    return set(session.exec(select(FeatureVersionRow.digest)).all())


def pins(session: Session) -> dict[str, DataPin]:
    """Every version by what nodes call it."""
    query = select(FeatureVersionRow.name, FeatureVersionRow.number, FeatureVersionRow.digest)
    return {
        pin_name(f"{name}@{number}"): DataPin(
            version=pin_name(f"{name}@{number}"), manifest=digest, file=None
        )
        for name, number, digest in session.exec(query).all()
    }


def pin(row: FeatureVersionRow) -> DataPin:
    return DataPin(version=pin_name(f"{row.name}@{row.number}"), manifest=row.digest, file=None)


def view(row: FeatureVersionRow, versions: int | None = None) -> FeatureVersionView:
    found = FeatureVersionView(
        id=f"{row.name}@{row.number}",
        name=row.name,
        version=row.number,
        digest=row.digest,
        files=row.files,
        bytes=row.size,
        inputs=len(row.declaration["inputs"]),
        outputs=len(row.declaration["outputs"]),
        source=row.source,
        note=row.note,
        user=row.user,
        created_at=rfc3339(row.created_at),
    )
    return found if versions is None else {**found, "versions": versions}


def detail(row: FeatureVersionRow) -> FeatureVersionDetail:
    return {**view(row), "declaration": row.declaration}
