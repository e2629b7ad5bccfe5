"""What must be refused: one clear error, the right exit code, and nothing submitted. And logs that
hold what no one should send to a terminal."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import Cluster

pytestmark = pytest.mark.ray

BOMB = "a: &a [x, x, x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

FILES = {
    "unknown field": ("command: 'true'\nprioriy: 3\n", ["job.yaml:2", "did you mean priority?"]),
    "wrong type": ("command: 'true'\nnodes: two\n", ["job.yaml:2", "'two'", "a whole number"]),
    "zero ranks": ("command: 'true'\nprocs_per_node: 0\n", ["job.yaml:2", "at least 1"]),
    "too many GPUs": ("command: 'true'\nresources: {gpu: 16}\n", ["16 GPUs", "has 2"]),
    "missing workdir": ("command: 'true'\nworkdir: nowhere\n", ["nowhere", "does not exist"]),
    "alias bomb": (f"command: 'true'\n{BOMB}", ["job.yaml:2", "no anchors or aliases"]),
    "path escape": ("command: 'true'\noutputs: {m: ../../etc/x}\n", ["job.yaml:2", "'..'"]),
    "absolute path": ("command: 'true'\noutputs: {m: /etc/passwd}\n", ["job.yaml:2", "/etc"]),
    "no command": ("name: x\n", ["command"]),
    "no YAML": ("command: [\n", ["job.yaml"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file(cluster: Cluster, tmp_path: Path, case: str) -> None:
    text, words = FILES[case]
    (tmp_path / "job.yaml").write_text(text)
    _refused(cluster, ["submit", "job.yaml"], tmp_path, words)


def test_no_file_or_no_file_at_all(cluster: Cluster, tmp_path: Path) -> None:
    _refused(cluster, ["submit", "job.yaml"], tmp_path, ["no file job.yaml"])
    _refused(cluster, ["submit", "."], tmp_path, ["folder"])
    _refused(cluster, ["submit"], tmp_path, ["nothing to submit"])


def test_two_gigabytes_of_work_folder(cluster: Cluster, tmp_path: Path) -> None:
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(2 << 30)  # sparse: it takes no room here
    _refused(cluster, ["submit", "--", "true"], tmp_path, ["2 GiB", "500 MiB", "weights.bin"])


def test_an_unreadable_file_is_named(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "secret.txt").chmod(0)
    command = cluster.command("submit", "--", "true")
    if os.geteuid() == 0:  # root reads everything, unless it lets go of what makes it so
        if shutil.which("setpriv") is None:
            pytest.skip("root reads every file, and there is no setpriv to change that")
        capabilities = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={capabilities}", *command]
    done = subprocess.run(
        command, env=cluster.environ, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "secret.txt") in done.stderr


def test_what_is_not_there(cluster: Cluster) -> None:
    for words in (["job", "j999999"], ["logs", "j999999"], ["wait", "j999999"], ["node", "nope"]):
        done = cluster.qd(*words)
        assert (done.code, done.out) == (3, ""), done.err
    assert cluster.qd("job", "banana").code == 2
    assert cluster.qd("jbos").code == 2


def _refused(cluster: Cluster, words: list[str], cwd: Path, expected: list[str]) -> None:
    before = cluster.count()
    done = cluster.qd(*words, cwd=cwd)
    assert (done.code, done.out) == (2, ""), done.err
    for word in expected:
        assert word in done.err
    assert cluster.count() == before, "nothing was submitted"


HOSTILE = b"\xff\xfe not text\n\x1b]0;owned\x07\x1b[2J\xe2\x80\xaereversed\n"


def test_hostile_bytes_are_kept_on_disk_and_shown_harmless(cluster: Cluster) -> None:
    octal = "".join(f"\\{byte:03o}" for byte in HOSTILE)
    job = cluster.submit("--wait", "--", f"printf '{octal}'").split()[0]
    log = cluster.where.logs / job / "1" / "r0.log"
    assert log.read_bytes() == HOSTILE
    raw = subprocess.run(
        cluster.command("logs", job, "--raw"), env=cluster.environ, capture_output=True, check=True
    )
    assert raw.stdout == HOSTILE
    lines = [line for _, line in cluster.lines(job)]
    assert lines == ["\\xff\\xfe not text", HOSTILE.splitlines()[1].decode()], "whole, for programs"
    screen = _on_a_terminal(cluster, "logs", job)
    assert "\\xff\\xfe not text" in screen
    assert "␛]0;owned" in screen
    assert not {"\x1b", "\x07", "\u202e"} & set(screen)


def _on_a_terminal(cluster: Cluster, *words: str) -> str:
    """What a command writes when its output is a terminal."""
    ours, theirs = pty.openpty()
    written = b""
    with subprocess.Popen(
        cluster.command(*words), env=cluster.environ, stdout=theirs, stderr=theirs, stdin=theirs
    ):
        os.close(theirs)
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
            written += data
    os.close(ours)
    return written.decode()
