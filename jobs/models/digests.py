"""Documents that are named by their content."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from jobs.base.errors import InvalidInput


def digest_of(document: Any) -> str:
    """`sha256:` and the digest of a document's canonical JSON. Raises InvalidInput for NaN."""
    try:
        text = json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except ValueError as error:
        raise InvalidInput(f"not plain JSON: {error}") from None
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
