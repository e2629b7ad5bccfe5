"""Where the blobs of a cluster are: a folder of its state, or what QD_BLOBS_URL names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agents.controller.stores.blobindex import BlobIndex
from agents.controller.stores.blobs import BlobStore, FolderBlobs
from agents.controller.stores.objectblobs import CACHE, ObjectBlobs
from agents.controller.stores.objects import Objects, Place, credentials_file
from jobs.base.errors import Conflict, InvalidInput
from jobs.base.units import parse_size

INDEX = "index.db"


def open_blobs(state: Path, config: Path, environ: Mapping[str, str]) -> BlobStore:
    """Open the store of blobs.

    Args:
        state, config: the cluster's folders.

    Raises:
        InvalidInput: QD_BLOBS_URL or QD_BLOBS_CACHE is not understood.
        Conflict: this cluster's blobs are elsewhere.
        Unreachable: the storage has to be listed, and does not answer.
    """
    folder, url = state / "blobs", environ.get("QD_BLOBS_URL", "").strip()
    if not url:
        if elsewhere := blobs_elsewhere(state):
            raise Conflict(
                f"the blobs of this cluster are in {elsewhere}, and QD_BLOBS_URL is not set",
                "Set it as it was.",
            )
        return FolderBlobs(folder)
    if next(folder.glob("sha256/??/*"), None) is not None:
        raise Conflict(
            f"the blobs of this cluster are in {folder}, and QD_BLOBS_URL says {Place.parse(url)}",
            "Unset it; a cluster begins with object storage, or stays with its folder.",
        )
    text = environ.get("QD_BLOBS_CACHE", "").strip()
    try:
        cache = parse_size(text) if text else CACHE
    except ValueError as error:
        raise InvalidInput(f"QD_BLOBS_CACHE: {error}", "A size, such as 20GiB.") from None
    objects = Objects(Place.parse(url), credentials_file(config, environ))
    return ObjectBlobs(objects, folder, cache=cache)


def blobs_elsewhere(state: Path) -> str:
    """The storage that has this cluster's blobs; empty where they are in the state folder."""
    file = state / "blobs" / INDEX
    if not file.is_file():
        return ""
    index = BlobIndex(file)
    try:
        return index.of if index.items() else ""
    finally:
        index.close()
