"""What holds for every test."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _freed() -> Iterator[None]:
    """Free what the console of a test built: otherwise a run over all of them grows to 3 GB. A console moves
    what it has built out of the collector's sight, once in its process's life, and Textual remembers the
    painted lines of the last 1,024 widgets (an `lru_cache` on a method)."""
    yield
    if gc.get_freeze_count():
        gc.unfreeze()
        if (textual := sys.modules.get("textual._styles_cache")) is not None:
            textual.StylesCache.get_inner_outer.cache_clear()
        gc.collect()
