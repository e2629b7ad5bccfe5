"""What the API says of features. Sizes are bytes, times RFC 3339 in UTC."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict


class FeatureVersionView(TypedDict):
    id: str  # "rides@3"
    name: str
    version: int
    digest: str
    files: int
    bytes: int
    inputs: int
    outputs: int
    source: str
    note: str
    user: str
    created_at: str
    versions: NotRequired[int]  # in lists: how many there are of this name
    created: NotRequired[bool]  # of an addition: false when the content was there already


class FeatureVersionDetail(FeatureVersionView):
    declaration: dict[str, Any]  # see docs/features.md
