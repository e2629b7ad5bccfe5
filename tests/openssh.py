"""OpenSSH's own programs, which a test may need: they are not part of what `make test` asks for."""

from __future__ import annotations

import shutil

import pytest


def need(program: str) -> None:
    """Skip the test that asks where the program is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (apt-get install openssh-client)")
