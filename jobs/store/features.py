"""Reading and writing versions of features. Functions take an open Session and never commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlmodel import Session, func, select

from jobs.base.times import rfc3339
from jobs.features.names import FeatureRef, parse_ref, pin_name
from jobs.store import named as by_name
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
    return by_name.get(
        session,
        FeatureVersionRow,
        ref.name,
        ref.number,
        none="there are no features",
        make="`qd features add NAME FILE` makes them.",
    )


def named(session: Session, version: str | None) -> dict[str, str] | None:
    """What the lineage of a run says of the features that it names, by their exact version."""
    if version is None:
        return None
    row = get(session, parse_ref(version))
    return {"version": f"{row.name}@{row.number}", "digest": row.digest}


def newest(session: Session) -> list[tuple[FeatureVersionRow, int]]:
    """The newest version of each, by name, with how many versions it has."""
    return by_name.newest(session, FeatureVersionRow)


def versions(session: Session, name: str) -> list[FeatureVersionRow]:
    """All versions of some features, newest first. Raises NotFound."""
    get(session, FeatureRef(name))
    return by_name.all_of(session, FeatureVersionRow, name)


def digests(session: Session) -> set[str]:
    """Manifests of all versions: what is never removed from the store."""
    return by_name.digests(session, FeatureVersionRow)


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
