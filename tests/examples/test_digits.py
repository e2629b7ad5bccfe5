"""The digits example, run as two real ranks: it learns, resumes truly, stops cleanly, exports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agents.node.worker

torch = pytest.importorskip("torch", reason="the example needs PyTorch")
datasets = pytest.importorskip("sklearn.datasets", reason="the example needs scikit-learn")

SCRIPT = Path(__file__).parents[2] / "examples" / "digits" / "train.py"
EPOCHS = 10
BATCH = 64
WORLD = 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Gang:
    """Starts the ranks of one run, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ranks: list[subprocess.Popen[bytes]] = []
        folder.mkdir()

    def start(self) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("QD_", "PYTHON"))}
        port = str(free_port())
        for rank in range(WORLD):
            env = {
                **kept,
                "PYTHONPATH": str(Path(agents.node.worker.__file__).parent),
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(WORLD),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "QD_SEED": "7",
                "QD_CHECKPOINT_DIR": str(self.folder / "checkpoints"),
                "QD_METRICS_FILE": str(self.folder / f"metrics-{rank}.jsonl"),
                "QD_STOP_FILE": str(self.folder / "stop"),
            }
            with (self.folder / f"rank-{rank}.log").open("ab") as log:
                options = ["--epochs", str(EPOCHS), "--batch-size", str(BATCH)]
                self.ranks.append(
                    subprocess.Popen(
                        [sys.executable, str(SCRIPT), *options],
                        cwd=self.folder,
                        env=env,
                        stdout=log,
                        stderr=log,
                    )
                )

    def finish(self) -> None:
        codes = [rank.wait(60) for rank in self.ranks]
        self.ranks.clear()
        assert codes == [0] * WORLD, self.log(0) + self.log(1)

    def kill(self) -> None:
        for rank in self.ranks:
            rank.send_signal(signal.SIGKILL)
        for rank in self.ranks:
            rank.wait(20)
        self.ranks.clear()

    def log(self, rank: int) -> str:
        return (self.folder / f"rank-{rank}.log").read_text()

    def metrics(self, rank: int) -> dict[tuple[str, int], float]:
        path = self.folder / f"metrics-{rank}.jsonl"
        points = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )
        return {(point["n"], point["s"]): point["v"] for point in points}

    def checkpoint(self) -> dict[str, Any]:
        path = self.folder / "checkpoints" / "last.pt"
        loaded: dict[str, Any] = torch.load(path, weights_only=True)
        return loaded


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gang]:
    """A run that nothing disturbs."""
    gang = Gang(tmp_path_factory.mktemp("digits") / "straight")
    try:
        gang.start()
        gang.finish()
        yield gang
    finally:
        gang.kill()


def test_it_learns_and_tells_what_it_did(straight: Gang) -> None:
    metrics = straight.metrics(0)
    last = EPOCHS - 1
    assert metrics["val_acc", last] > 0.95
    assert metrics["train_loss", last] < metrics["train_loss", 0] / 3
    assert {name for name, _ in metrics} == {"train_loss", "val_loss", "val_acc", "step_time"}
    assert {name for name, _ in straight.metrics(1)} == {"step_time"}
    for rank in range(WORLD):
        assert f"epoch {EPOCHS}/{EPOCHS}" in straight.log(rank)
        assert "Warning" not in straight.log(rank)


def test_the_exported_model_gives_the_same_predictions(straight: Gang) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    images = datasets.load_digits().data.astype("float32")
    session = onnxruntime.InferenceSession(str(straight.folder / "out" / "model.onnx"))
    (logits,) = session.run(["logits"], {"images": images})

    weights = straight.checkpoint()["model"]
    hidden = torch.tensor(images) / 16.0
    layers = [(weights[k], weights[k.replace("weight", "bias")]) for k in weights if "weight" in k]
    for weight, bias in layers[:-1]:
        hidden = torch.relu(hidden @ weight.T + bias)
    expected = hidden @ layers[-1][0].T + layers[-1][1]
    torch.testing.assert_close(torch.tensor(logits), expected, rtol=1e-4, atol=1e-4)
    assert (logits.argmax(1) == expected.argmax(1).numpy()).all()


def test_killed_stopped_and_resumed_it_ends_like_a_straight_run(
    straight: Gang, tmp_path: Path
) -> None:
    gang = Gang(tmp_path / "disturbed")
    try:
        gang.start()
        deadline = time.monotonic() + 60
        while ("val_acc", 2) not in gang.metrics(0):  # logged just before its checkpoint
            assert time.monotonic() < deadline, gang.log(0)
            time.sleep(0.01)
        gang.kill()
        killed_after = gang.checkpoint()["epoch"]
        assert 1 <= killed_after < EPOCHS - 2

        (gang.folder / "stop").touch()
        gang.start()
        gang.finish()  # exit code 0: a clean end
        assert gang.checkpoint()["epoch"] == killed_after + 1
        assert "asked to stop" in gang.log(1)
        assert not (gang.folder / "out").exists()

        (gang.folder / "stop").unlink()
        gang.start()
        gang.finish()
    finally:
        gang.kill()

    assert f"resuming after epoch {killed_after + 2}" in gang.log(0)
    mine, other = gang.checkpoint(), straight.checkpoint()
    assert mine["epoch"] == other["epoch"] == EPOCHS - 1
    torch.testing.assert_close(mine["model"], other["model"], rtol=0, atol=0)
    torch.testing.assert_close(mine["optimizer"], other["optimizer"], rtol=0, atol=0)
    torch.testing.assert_close(mine["random"], other["random"], rtol=0, atol=0)
    for name in ("train_loss", "val_loss", "val_acc"):
        for epoch in range(EPOCHS):
            assert gang.metrics(0)[name, epoch] == straight.metrics(0)[name, epoch]
    model = Path("out") / "model.onnx"
    assert (gang.folder / model).read_bytes() == (straight.folder / model).read_bytes()
