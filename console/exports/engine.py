"""podman or buildah on this machine: which image a name means, building one, writing an OCI layout."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from jobs.base.errors import Conflict, InvalidInput
from jobs.exports.containerfile import is_pinned


def pinned(reference: str) -> str:
    """The same image by its digest, as far as podman here has it; else the name as it is."""
    if is_pinned(reference) or shutil.which("podman") is None:
        return reference
    words = ["podman", "image", "inspect", "--format", "{{.Digest}}", reference]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    digest = done.stdout.strip()
    if done.returncode or not digest.startswith("sha256:"):
        return reference
    folder, slash, last = reference.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}@{digest}"


def build(folder: Path, tag: str) -> None:
    """Build the image of a folder. Raises Conflict without a builder, InvalidInput with its last words."""
    program = _program()
    words = [program, "build", "--format", "docker", "--tag", tag, str(folder)]
    _run(words, f"{Path(program).name} build")


def write_layout(tag: str, folder: Path) -> None:
    """Write an image as an OCI image layout. Raises as `build` does."""
    program = _program()
    _run(
        [program, "push", "--quiet", tag, f"oci:{folder}:{_tag(tag)}"], f"{Path(program).name} push"
    )


def _tag(reference: str) -> str:
    return reference.rpartition("/")[2].partition(":")[2] or "latest"


def _program() -> str:
    for name in ("podman", "buildah"):
        if found := shutil.which(name):
            return found
    raise Conflict(
        "there is no podman and no buildah here",
        "Without --build and --oci the folder alone is written, which any builder takes.",
    )


def _run(words: list[str], what: str) -> None:
    """Its output goes to stderr: a build takes a while, and says why it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise InvalidInput(
            f"`{what}` failed with exit code {done.returncode}", "Its words are above."
        )
