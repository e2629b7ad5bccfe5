"""Values of jobs' secrets: one private file per job that is not over, never in the registry."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from jobs.base.disk import storage_full


class SecretStore:
    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, job: int, values: dict[str, str]) -> None:
        if not values:
            return
        """Raises StorageFull; then nothing was kept."""
        temporary = self._root / f".j{job}"
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w") as file:
                json.dump(values, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._root / f"j{job}.json")
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise storage_full("secrets cannot be stored", error) from error

    def load(self, job: int) -> dict[str, str]:
        try:
            values: dict[str, str] = json.loads((self._root / f"j{job}.json").read_text())
        except FileNotFoundError:
            return {}
        return values

    def newest_job(self) -> int:
        """The highest number of a job that has secrets; 0 without one."""
        names = [path.stem.removeprefix("j") for path in self._root.glob("j*.json")]
        return max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)

    def drop(self, job: int) -> None:
        (self._root / f"j{job}.json").unlink(missing_ok=True)
