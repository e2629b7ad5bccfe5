"""Files that a job wrote, for tests of the console."""

from __future__ import annotations

from typing import Literal

from jobs.wire.views import FileView
from tests.console.tui.fake_views import at

CONTENTS = {
    "out/report.md": b"# Run 412\n\nloss 2.10\n\x1b]0;own title\x07 a title of its own\n",
    "out/model.onnx": bytes(range(256)) * 4,
    "config.yaml": b"lr: 0.0003\nlayers: 32\n",
}


def file(
    path: str,
    size: int,
    place: Literal["output", "checkpoint", "work"] = "work",
    *,
    name: str = "",
    node: str | None = "n01",
    ago: float = 60,
) -> FileView:
    return {
        "place": place,
        "name": name,
        "path": path,
        "size": size,
        "mode": 0o644,
        "at": at(ago),
        "node": node,
        "sha256": "a" * 64 if node is None else None,
    }


def written() -> list[FileView]:
    return [
        file("out/model.onnx", 1024, "output", name="model", node=None, ago=30),
        file("out/report.md", len(CONTENTS["out/report.md"]), "output", name="report", node=None),
        *(
            file(f"step-{step:06}/shard-{shard}.safetensors", 3_600_000_000, "checkpoint",
                 node=f"n0{1 + 2 * shard}", ago=9000 - step)
            for step in (3000, 6000)
            for shard in (0, 1)
        ),
        file("config.yaml", 21, ago=9100),
        file("plots/loss.png", 48_211, ago=300),
        file("plots/grad/norm.png", 31_004, ago=86400 * 2),
    ]  # fmt: skip


def brought() -> list[FileView]:
    return [file("train.py", 4096, ago=9300)]
