"""What the API says of data sets. Sizes are bytes, times RFC 3339 in UTC."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict


class DataPin(TypedDict):
    """A version, of a data set or of a model, as a node brings it to a job."""

    version: str  # "digits@3"; of a model "digits:3"
    manifest: str  # "sha256:..."
    file: str | None  # the one file that it was added from; None for a folder


class DataVersionView(TypedDict):
    id: str  # "digits@3"
    name: str
    version: int
    digest: str
    files: int
    bytes: int
    file: str | None
    source: str
    note: str
    user: str
    created_at: str
    rows: NotRequired[int]  # of all its tables, where they were profiled
    versions: NotRequired[int]  # in lists: how many there are of this data set
    created: NotRequired[bool]  # of an addition: false when the content was there already


class DataVersionDetail(DataVersionView):
    profile: dict[str, Any] | None  # of tables: see docs/data.md
    lineage: dict[str, Any] | None  # of what a job made: run, data, features


class DataFile(TypedDict):
    path: str
    bytes: int
    sha256: str  # hex; empty for a link
    link: str | None
