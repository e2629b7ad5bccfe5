"""Versions by name and number: what data sets and features have in common.

Every function takes an open Session and never commits.
"""

from __future__ import annotations

import difflib
from typing import TypeVar

from sqlmodel import Session, col, func, select

from jobs.base.errors import NotFound
from jobs.store.datatables import DataVersionRow
from jobs.store.featuretables import FeatureVersionRow

Row = TypeVar("Row", DataVersionRow, FeatureVersionRow)


def get(
    session: Session, kind: type[Row], name: str, number: int | None, *, none: str, make: str
) -> Row:
    """A version; the newest one without a number.

    Args:
        none: "there is no data set", which the name follows.
        make: how one is made, as a sentence.

    Raises NotFound, with the nearest name.
    """
    query = select(kind).where(kind.name == name)
    if number is not None:
        query = query.where(kind.number == number)
    row = session.exec(query.order_by(col(kind.number).desc()).limit(1)).first()
    if row is not None:
        return row
    names = list(session.exec(select(kind.name).distinct()).all())
    if name in names:
        last = session.exec(select(func.max(kind.number)).where(kind.name == name)).one()
        raise NotFound(f"there is no {name}@{number}", f"The newest version is {name}@{last}.")
    near = difflib.get_close_matches(name, names, 1)
    raise NotFound(f"{none} {name}", f"Did you mean {near[0]}?" if near else make)


def newest(session: Session, kind: type[Row]) -> list[tuple[Row, int]]:
    """The newest version of each, by name, with how many versions it has."""
    counts = (
        select(
            col(kind.name).label("name"),
            func.max(kind.number).label("number"),
            func.count().label("versions"),
        )
        .group_by(col(kind.name))
        .subquery()
    )
    rows = session.exec(
        select(kind, counts.c.versions)
        .join(counts, (counts.c.name == col(kind.name)) & (counts.c.number == col(kind.number)))
        .order_by(col(kind.name))
    ).all()
    return [(row, versions) for row, versions in rows]


def all_of(session: Session, kind: type[Row], name: str) -> list[Row]:
    """All versions of one, newest first."""
    query = select(kind).where(kind.name == name)
    return list(session.exec(query.order_by(col(kind.number).desc())).all())


def digests(session: Session, kind: type[Row]) -> set[str]:
    """Manifests of all versions: what is never removed from the store."""
    return set(session.exec(select(kind.digest)).all())
