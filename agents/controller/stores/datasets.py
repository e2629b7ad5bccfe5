"""Which versions of data sets there are, in memory: planning a job asks without the database."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from sqlmodel import Session

from agents.controller.stores.blobs import BlobStore
from agents.controller.stores.database import Database
from jobs.base.errors import NotFound
from jobs.data.names import DataRef
from jobs.features.names import FeatureRef, pin_name
from jobs.models.names import ModelRef
from jobs.snapshots.manifest import Manifest
from jobs.store import datasets, features, models
from jobs.wire.dataviews import DataPin

_HELD = 4
"""Manifests whose sizes are held."""


class Datasets:
    """Versions never change, so what is known stays true; new ones are noted as they are recorded."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._pins: dict[str, DataPin] = {}
        self._sizes: OrderedDict[str, dict[str, int]] = OrderedDict()

    async def load(self) -> None:
        def read(session: Session) -> dict[str, DataPin]:
            return datasets.pins(session) | features.pins(session) | models.pins(session)

        self._pins = await self._db.read(read)

    def note(self, pin: DataPin) -> None:
        self._pins[pin["version"]] = pin

    def sizes(self, manifest: str, blobs: BlobStore) -> dict[str, int]:
        """Bytes of each content of a version, by its hex digest. Blocking.

        The last few are held: who copies a version asks for each of its files, and a manifest of 100,000
        files takes a while to read.
        """
        found = self._sizes.get(manifest)
        if found is None:
            read = Manifest.from_bytes(blobs.read(manifest))
            found = {entry.sha256: entry.size for entry in read.files if entry.sha256}
            self._sizes[manifest] = found
        while len(self._sizes) > _HELD:
            self._sizes.popitem(last=False)
        return found

    async def pinned(self, wanted: Mapping[str, DataRef]) -> dict[str, str]:
        """The exact version of each: `digits` becomes `digits@3`. Raises NotFound."""

        def read(session: Session) -> dict[str, DataPin]:
            return {name: datasets.pin(datasets.get(session, ref)) for name, ref in wanted.items()}

        found = await self._db.read(read) if wanted else {}
        for pin in found.values():
            self.note(pin)
        return {name: pin["version"] for name, pin in found.items()}

    async def pinned_features(self, ref: FeatureRef) -> str:
        """The exact version, as with `pinned`. Raises NotFound."""
        row = await self._db.read(lambda session: features.pin(features.get(session, ref)))
        self.note(row)
        return row["version"].removeprefix(pin_name(""))

    async def pinned_models(self, wanted: Mapping[str, ModelRef]) -> dict[str, str]:
        """The exact version of each model: `llm@production` becomes `llm:3`.

        Raises NotFound, and Conflict for one that is archived.
        """

        def read(session: Session) -> dict[str, DataPin]:
            return {name: models.pin(session, ref) for name, ref in wanted.items()}

        found = await self._db.read(read) if wanted else {}
        for pin in found.values():
            self.note(pin)
        return {name: pin["version"] for name, pin in found.items()}

    def of(self, data: Mapping[str, str], transform: str | None = None) -> dict[str, DataPin]:
        """What a node needs of each version that a job names, its features among them: they are read-only
        files as well. Raises NotFound."""
        wanted = dict(data)
        if transform is not None:
            wanted["features"] = pin_name(transform)
        for version in wanted.values():
            if version not in self._pins:
                raise NotFound(f"there is no {version} in the registry")
        return {name: self._pins[version] for name, version in wanted.items()}
