"""The command of our model server, which serves a version of a model with its features."""

from __future__ import annotations

from jobs.features.declaration import FOLDER

READY = "/v2/health/ready"


def server_command(model: str, number: str, main: str, *, raw: bool) -> list[str]:
    """What runs in a folder with the version's files.

    Args:
        main: the file to load. raw: features are among the files, so that it takes raw rows.
    """
    words = ["--transform", FOLDER] if raw else []
    start = ["python", "-m", "quarterdeck_serve", "--name", model, "--version", number]
    return [*start, *words, main]
