"""Images of `qd export image`: built, run, answering, stopped; ranks in them; and as an OCI layout."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession

from agents.node.guard.containers import PODMAN
from agents.node.staging import images
from agents.node.staging.containers import _limits
from console.exports import packages
from tests.containers.test_containers import _ONE_VERSION, EXAMPLE, IMAGE
from tests.integration.conftest import running, until
from tests.models import classifier

pytestmark = pytest.mark.timeout(600)

BASE = "localhost/base:1"
SERVER = """
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = f"{os.getuid()} {os.environ['GREETING']} {os.path.basename(os.getcwd())}".encode()
        self.send_response(200 if self.path in ("/", "/health") else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""
SERVICE = """
name: hello
command: exec python server.py
ready: /health
env: {GREETING: 'ahoy "$USER"'}
"""
RANKS = """
import os, quarterdeck as q  # one write, or the lines of two ranks may mix
os.write(1, f"{q.rank} {os.environ['MASTER_ADDR']} {q.params}\\n".encode())
"""
JOB = """
name: ranks
command: python ranks.py
procs_per_node: 2
params: {lr: 0.5}
"""


class Machine:
    """podman with a store of this test's, and `qd` beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        store = f'driver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
        (folder / "storage.conf").write_text(f"[storage]\n{store}")
        self.env = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
            "QD_HOME": str(folder / "home"),
        }
        self.before: list[str] = []
        if "version" in images.why_not():
            self.before = ["unshare", "--mount", "sh", "-c", _ONE_VERSION]

    def __call__(
        self, *words: str, check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.before, *words],
            env=self.env | env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, [words, done.stdout, done.stderr]
        return done

    def qd(self, *words: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        return self(str(Path(sys.executable).parent / "qd"), *words, check=check, **env)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give podman a store of its own")
    for program in ("podman", images.RUNTIME, "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    made = Machine(tmp_path_factory.mktemp("exports"))
    subprocess.run([sys.executable, "make_image.py"], cwd=EXAMPLE, env=made.env, check=True)
    # Its Python may be in a folder of root's alone.
    opened = f"FROM {IMAGE}\nRUN python -c \"import os; os.chmod('/root', 0o755)\"\n"
    (made.folder / "Containerfile").write_text(opened)
    made(
        "podman", "build", "--tag", BASE, "--file", str(made.folder / "Containerfile"), str(EXAMPLE)
    )
    yield made
    assert made("podman", "ps", "--all", "--quiet").stdout == ""


def folder(machine: Machine, name: str, **files: str) -> Path:
    place = machine.folder / name
    place.mkdir()
    for file, text in files.items():
        (place / file.replace("__", ".")).write_text(text)
    return place


def test_a_service_is_built_answers_and_stops(machine: Machine) -> None:
    work = folder(machine, "svc", server__py=SERVER, service__yaml=SERVICE)
    context, layout = machine.folder / "ctx", machine.folder / "layout"
    file, build = str(work / "service.yaml"), ["--build", "localhost/hello:3"]
    out = ["--out", str(context), "--base", BASE, "--bare", *build, "--oci", str(layout)]
    made = json.loads(machine.qd("export", "image", file, *out, "--json").stdout)
    assert "@sha256:" in made["base"], "a name that podman knows is pinned"
    found = json.loads(machine("podman", "image", "inspect", "localhost/hello:3").stdout)[0]
    assert found["Config"]["User"] == "10001:10001"
    assert found["Healthcheck"]["Test"][-2:] == ["--ready", "/health"]
    assert found["Labels"]["org.opencontainers.image.base.name"] == made["base"]
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    blob = (layout / "blobs" / "sha256" / digest).read_bytes()
    assert hashlib.sha256(blob).hexdigest() == digest

    run = [*PODMAN, "run", "--detach", "--network=host", *_limits()]
    name = machine(*run, "--env", "PORT=18097", "localhost/hello:3").stdout.strip()
    try:
        assert until(lambda: _ask("http://127.0.0.1:18097/health")) == '10001 ahoy "$USER" app'
        assert machine("podman", "healthcheck", "run", name, check=False).returncode == 0
        machine("podman", "stop", "--time", "20", name)
        state = json.loads(machine("podman", "inspect", name).stdout)[0]["State"]
        assert state["ExitCode"] == 7, "SIGTERM reached the program itself"
    finally:
        machine("podman", "rm", "--force", name)


def test_a_model_is_served(machine: Machine) -> None:
    """Its packages are where the base's own PYTHONPATH says."""
    serving = with_packages(machine, "localhost/serving:1")
    context, file = machine.folder / "model", machine.folder / "net.onnx"
    file.write_bytes(classifier())
    with running() as cluster:
        assert cluster.qd("model", "import", str(file), "net").code == 0
        out = ["--out", str(context), "--base", serving, "--bare", "--build", "localhost/net:1"]
        machine.qd("export", "image", "net:1", *out, QD_HOME=cluster.environ["QD_HOME"])
    run = [*PODMAN, "run", "--detach", "--network=host", *_limits(), "--env", "PORT=18098"]
    name = machine(*run, "localhost/net:1").stdout.strip()
    model = "http://127.0.0.1:18098/v2/models/net"
    data = [[0.1 * n for n in range(8)], [-0.2] * 8]
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 8], "data": data}]}
    try:
        assert until(lambda: _ask(f"{model}/ready") and "ready"), "see below"
        answer = json.loads(_ask(f"{model}/infer", json.dumps(body).encode()))
        assert (answer["model_name"], answer["model_version"]) == ("net", "1")
        label, score = (one["data"] for one in answer["outputs"])
        expected = InferenceSession(file).run(None, {"x": np.array(data, np.float32)})
        assert label == expected[0].tolist()
        assert np.allclose(np.reshape(score, (2, 3)), expected[1])
        assert machine("podman", "healthcheck", "run", name, check=False).returncode == 0
    except BaseException:
        print(machine("podman", "logs", name, check=False))
        raise
    finally:
        machine("podman", "rm", "--force", name)


def test_a_base_without_a_path_gets_no_empty_one(machine: Machine) -> None:
    """An empty entry would be the work folder: its files could shadow the standard library."""
    settings = json.loads(machine("podman", "image", "inspect", "localhost/hello:3").stdout)[0]
    assert "PYTHONPATH=/opt/quarterdeck" in settings["Config"]["Env"]


def test_ranks_in_one_container(machine: Machine) -> None:
    work = folder(machine, "job", job__yaml=JOB, ranks__py=RANKS)
    out = ["--out", str(machine.folder / "jobctx"), "--base", BASE, "--bare"]
    machine.qd("export", "image", str(work / "job.yaml"), *out, "--build", "localhost/ranks:1")
    run = [*PODMAN, "run", "--rm", "--network=host", *_limits()]
    said = machine(*run, "localhost/ranks:1").stdout
    assert sorted(said.splitlines()) == [f"{rank} 127.0.0.1 {{'lr': 0.5}}" for rank in (0, 1)]


def test_a_base_that_nobody_knows_is_refused(machine: Machine) -> None:
    work = folder(machine, "loose", service__yaml=SERVICE)
    words = ["export", "image", str(work / "service.yaml"), "--out", str(machine.folder / "no")]
    done = machine.qd(*words, "--bare", "--base", "localhost/none:1", check=False)
    assert done.returncode == 2 and "no digest" in done.stderr
    assert not (machine.folder / "no").exists()


def with_packages(machine: Machine, name: str) -> str:
    """BASE with what the model server imports, and the libraries that this is linked with."""
    context = machine.folder / "packages"
    names = packages.closure(sys.executable, packages.SERVER)
    for line in names.splitlines():
        one = distribution(line.partition("==")[0])
        for file in one.files or ():
            source = Path(str(one.locate_file(file)))
            if ".." not in file.parts and source.is_file():
                place = context / "site" / file
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, place)
    binaries = [str(path) for path in (context / "site").rglob("*.so*")]
    said = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    for path in set(re.findall(r"=> (/\S+) \(0x", said)) - set(binaries):
        place = context / "root" / path.lstrip("/")
        if not path.startswith(str(context)):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(os.path.realpath(path), place)
            place.chmod(0o755)
    lines = [f"FROM {BASE}", "COPY root/ /", "COPY site/ /srv/site/", "ENV PYTHONPATH=/srv/site"]
    (context / "Containerfile").write_text("\n".join(lines) + "\n")
    machine("podman", "build", "--tag", name, str(context))
    return name


def _ask(url: str, body: bytes | None = None) -> str:
    try:
        with urllib.request.urlopen(url, body, timeout=2) as answer:
            text: bytes = answer.read()
            return text.decode() or answer.reason
    except (urllib.error.URLError, OSError):
        return ""
