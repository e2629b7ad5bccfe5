"""Versions of features of a test's own."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from console.cli.upload import send_blobs
from console.client import Client
from jobs.features.declaration import DECLARATION, Declaration
from jobs.snapshots.manifest import FileEntry, Manifest

HARD = """
import numpy as np

def transform(rows):
    km, minutes, price = rows["km"], rows["minutes"], rows["price"]
    wide = np.stack([km * k for k in (1.1, 0.3, 7.7, 1e-3, 2.9, 1e3, 0.7, 5.1, 1 / 3)])
    mixed = np.stack([np.sin(km), np.exp(-minutes / 60), np.log1p(price)], axis=1)
    weights = np.linspace(0.1, 0.7, 9).reshape(3, 3)
    hour = (rows["at"] - rows["at"].astype("datetime64[D]")) / np.timedelta64(1, "h")
    return {
        "x": np.concatenate([mixed @ weights, wide.sum(axis=0)[:, None]], axis=1),
        "hour": hour,
    }
"""
"""Sums over rows, a matrix product and functions of SIMD: what a batch of one gets in another order."""

RIDES: dict[str, Any] = {
    "inputs": {
        "at": {"type": "time", "zone": "UTC"},
        "city": "text",
        "km": "number",
        "minutes": "number",
        "price": {"type": "number", "missing": False},
    },
    "outputs": {"x": {"type": "float64", "width": 4}, "hour": "float64"},
    "keep": ["ride"],
    "joins": [
        {
            "table": "fuel",
            "on": "at",
            "at": "known",
            "by": ["city"],
            "columns": ["price"],
            "zone": "UTC",
        }
    ],
}


def write(folder: Path, code: str = HARD, given: dict[str, Any] | None = None) -> Path:
    """A version's folder, as a node has it."""
    folder.mkdir(parents=True, exist_ok=True)
    declaration = Declaration.from_json(given or RIDES)
    (folder / DECLARATION).write_bytes(declaration.to_bytes())
    (folder / declaration.code).write_text(code)
    return folder


async def add(client: Client, name: str, folder: Path) -> dict[str, Any]:
    """Register such a folder."""
    return await asyncio.to_thread(_add, client, name, folder)


def _add(client: Client, name: str, folder: Path) -> dict[str, Any]:
    entries = []
    sources: dict[str, bytes | Path] = {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        sources[digest] = data
        entries.append(FileEntry(path.name, 0o644, len(data), digest))
    manifest = Manifest.of(entries)
    sources[manifest.digest.removeprefix("sha256:")] = manifest.to_bytes()
    send_blobs(client, sources, told=lambda done, total: None)
    body = {"name": name, "digest": manifest.digest}
    view: dict[str, Any] = client.post("/v1/features", body)
    return view


def tables(folder: Path, rows: int = 300) -> tuple[Path, Path]:
    """Rides and fuel prices as CSV, for `RIDES`: awkward numbers, one price for each city at first."""
    folder.mkdir(parents=True, exist_ok=True)
    rides, fuel = folder / "rides.csv", folder / "fuel.csv"
    lines = ["ride,at,city,km,minutes"]
    for n in range(rows):
        at = f"2026-06-{n % 27 + 2:02}T{n % 24:02}:{n * 7 % 60:02}:00"
        lines.append(f"{n},{at},{'ab'[n % 2]},{(n * 0.1) ** 1.7!r},{n / 7!r}")
    rides.write_text("\n".join(lines) + "\n")
    lines = ["known,city,price"]
    for day in range(1, 29):
        lines += [f"2026-06-{day:02},{city},{1.5 + day / 9 + (city == 'b')!r}" for city in "ab"]
    fuel.write_text("\n".join(lines) + "\n")
    return rides, fuel
