"""Accounts for tests of what separates users: made by root, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root makes accounts and runs ranks as others"
)


@contextmanager
def accounts(*ends: str) -> Iterator[list[str]]:
    """Accounts of this machine, named after this process and these ends; they have no home."""
    with ExitStack() as stack:
        names = []
        for end in ends:
            name = f"qdt{os.getpid()}{end}"
            subprocess.run(["useradd", "-M", "-s", "/bin/sh", name], check=True)
            stack.callback(subprocess.run, ["userdel", name], check=True, capture_output=True)
            names.append(name)
        yield names
