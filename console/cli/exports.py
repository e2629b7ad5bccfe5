"""`qd export image|kubernetes|kserve|kuberay`: services, jobs and models for elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console import guest
from console.cli.options import Json
from console.cli.output import emit, narrate, say
from jobs.base.disk import cannot_write
from jobs.base.errors import InvalidInput
from jobs.base.words import counted

if TYPE_CHECKING:
    from console.exports.context import Contents
    from jobs.exports.workload import Workload
    from jobs.wire.modelviews import ModelDetail

What = Annotated[
    str,
    typer.Argument(
        metavar="FILE|NAME:VER",
        help="A file of a service or job, or a version of a model.",
        show_default=False,
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="KIND", help="What the file is, service or job; else seen from it."
    ),
]
Without = Annotated[
    str | None,
    typer.Option(metavar="FIELDS", help="Fields to leave out, comma-separated."),
]
Image = Annotated[
    str | None,
    typer.Option(metavar="REF", help="The image that `qd export image` made.", show_default=False),
]
Namespace = Annotated[str | None, typer.Option(metavar="NAME", help="Kubernetes namespace.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write to this file instead of stdout."),
]


def image(
    what: What,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="A new folder, or one of an earlier export.")
    ],
    base: Annotated[
        str | None, typer.Option(metavar="REF", help="A Python image, NAME@sha256:...")
    ] = None,
    requirements: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What to install, as name==version.")
    ] = None,
    bare: Annotated[
        bool, typer.Option("--bare", help="Install nothing: the base has all packages.")
    ] = False,
    build: Annotated[
        str | None, typer.Option(metavar="TAG", help="Also build it, with podman or buildah.")
    ] = None,
    oci: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --build: also as an OCI image layout.")
    ] = None,
    unpinned: Annotated[
        bool, typer.Option("--unpinned", help="Allow a base or packages without exact versions.")
    ] = False,
    kind: Kind = None,
    without: Without = None,
    as_json: Json = False,
) -> None:
    """Write a container image's build folder, and build it.

    \b
      qd export image service.yaml --out ctx --base python@sha256:... --build app:1
      qd export image digits:3 --out ctx --base python@sha256:...

    The folder has a Containerfile, the code and our helper. See docs/exports.md.
    """
    from console.exports import context, engine
    from jobs.exports import mapping
    from jobs.exports.containerfile import Plan, check_pinned

    guest.refuse("`qd export image`")
    if oci is not None and build is None:
        raise InvalidInput("--oci needs --build TAG", "It is the built image that is written.")
    if bare and requirements is not None:
        raise InvalidInput("--bare and --requirements exclude each other")
    workload, contents, folder = _read(what, kind, without)
    mapping.check(workload, "image")
    own = workload.job.image
    if own is not None and base is not None:
        raise InvalidInput(
            f"--base: the image is {own} already (image:)", "Leave out one: --without image."
        )
    start = own or base
    if start is None:
        raise InvalidInput(
            "--base: which image to begin with is not known",
            "Give one that has Python, such as --base docker.io/library/python@sha256:...",
        )
    start = engine.pinned(start)
    nothing = bare or (own is not None and requirements is None)
    requires = None if nothing else _requires(workload, folder, requirements)
    if not unpinned:
        check_pinned(start, requires)
    record = {**contents.record, "base": start}
    labels = {
        "org.opencontainers.image.title": workload.job.name,
        "org.opencontainers.image.base.name": start,
        **({"org.opencontainers.image.version": workload.version} if workload.version else {}),
        **({"dev.quarterdeck.files": record["files"]} if "files" in record else {}),
    }
    whole = context.Contents(contents.manifest, contents.sources, contents.fetch, record)
    files = context.write(out, workload, Plan(start, requires, labels), whole)
    if build is not None:
        narrate(f"{out}: {counted(files, 'file')}; building {build}")
        engine.build(out, build)
    if build is not None and oci is not None:
        engine.write_layout(build, oci)
    if as_json:
        layout = str(oci) if oci is not None else None
        emit({"path": str(out), "files": files, "base": start, "image": build, "oci": layout})
    else:
        say(build or str(out))
        if build is None:
            narrate(f"{counted(files, 'file')}; `podman build -t TAG {out}` makes the image")


def kubernetes(
    what: What,
    image: Image = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="PATH", help="Path of a service's metrics: a PodMonitor.")
    ] = None,
    gauge: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its gauge of requests in progress.")
    ] = None,
    namespace: Namespace = None,
    output: Output = None,
    kind: Kind = None,
    without: Without = None,
    as_json: Json = False,
) -> None:
    """Write Kubernetes manifests of a service or a job.

    \b
      qd export kubernetes service.yaml --image registry.example/app@sha256:... | kubectl apply -f -

    A service becomes a Deployment and a Service, with an autoscaler and a PodMonitor where they
    apply; a job becomes a Job, with an index for each node. See docs/exports.md.
    """
    from jobs.exports.kubernetes import manifests

    workload, _, _ = _read(what, kind, without)
    made = manifests(workload, _image(image), namespace=namespace, metrics=metrics, gauge=gauge)
    _write(made, output, as_json)


def kserve(
    what: What,
    image: Image = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URI", help="Instead of an image: where the model is.")
    ] = None,
    namespace: Namespace = None,
    output: Output = None,
    kind: Kind = None,
    without: Without = None,
    as_json: Json = False,
) -> None:
    """Write a KServe InferenceService of a service or a model."""
    from jobs.exports.kserve import manifest

    if (image is None) == (storage is None):
        raise InvalidInput("give --image, or --storage", "One of both says what is served.")
    workload, _, _ = _read(what, kind, without)
    made = manifest(workload, image=image, storage=storage, namespace=namespace)
    _write([made], output, as_json)


def kuberay(
    what: What,
    image: Image = None,
    ray: Annotated[
        str | None, typer.Option("--ray-version", metavar="V", help="Of Ray in the image.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Ray nodes beside the head.")] = 0,
    worker_cpus: Annotated[float, typer.Option(min=0.1, help="CPUs of each.")] = 1.0,
    worker_gpus: Annotated[int, typer.Option(min=0, help="GPUs of each.")] = 0,
    worker_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of each, such as 8GiB.")
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option(metavar="MODULE:APP", help="A Ray Serve application: a RayService."),
    ] = None,
    namespace: Namespace = None,
    output: Output = None,
    kind: Kind = None,
    without: Without = None,
    as_json: Json = False,
) -> None:
    """Write a KubeRay RayJob or RayService."""
    from jobs.base.units import parse_size
    from jobs.exports.kuberay import Workers, ray_job, ray_service

    try:
        memory = 0 if worker_memory is None else parse_size(worker_memory)
    except ValueError as error:
        raise InvalidInput(f"--worker-memory: {error}") from None
    group = Workers(workers, worker_cpus, memory, worker_gpus)
    workload, _, _ = _read(what, kind, without)
    version, named = ray or _ray_here(), _image(image)
    made = (
        ray_job(workload, named, version, group, namespace=namespace)
        if serve is None
        else ray_service(workload, named, version, group, serve, namespace=namespace)
    )
    _write([made], output, as_json)


def _image(given: str | None) -> str:
    if given is None:
        raise InvalidInput(
            "--image: which image runs is not known", "`qd export image` makes one; push it first."
        )
    return given


def _ray_here() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ray")
    except PackageNotFoundError:
        raise InvalidInput("--ray-version: Ray is not installed here; give the image's") from None


def _read(what: str, kind: str | None, without: str | None) -> tuple[Workload, Contents, Path]:
    """What is exported, with its files, and the folder that they are in."""
    from console.cli.upload import scanned
    from console.exports.context import Contents
    from jobs.exports.reading import read

    if kind not in (None, "service", "job"):
        raise InvalidInput(f"--as: found '{kind}'; allowed: service or job")
    names = [name.strip() for name in (without or "").split(",") if name.strip()]
    if not Path(what).is_file():
        if what.endswith((".yaml", ".yml")):
            raise InvalidInput(f"there is no file {what}")
        return _of_model(what, names)
    path = guest.inside(Path(what))
    workload = read(path, kind)
    narrate(f"{path.name} is a {'job' if workload.service is None else 'service'}")
    workload = workload.leaving_out(names)
    folder = path.absolute().parent / workload.job.workdir
    found = scanned(folder, workload.job.include)
    record: dict[str, Any] = {"source": path.name, "files": found.manifest.digest}
    if found.git is not None:
        record["git"] = {name: item for name, item in found.git.items() if name != "at_home"}
    if workload.models:
        record["models"] = dict(workload.job.models)
    fetch = _fetcher(workload) if workload.models else None
    return workload, Contents(found.manifest, found.sources, fetch, record), folder


def _fetcher(workload: Workload) -> Any:
    from console.cli.modelfiles import fetch_all

    refs = dict(workload.job.models)

    def fetch(name: str, place: Path) -> None:
        fetch_all(refs[name], place)

    return fetch


def _of_model(ref: str, without: list[str]) -> tuple[Workload, Contents, Path]:
    """A version as our model server serves it: its own files are the work folder."""
    from console.cli.models import model_path
    from console.client import Client
    from console.exports.context import Contents
    from jobs.exports.workload import Workload
    from jobs.features.serving import READY, server_command
    from jobs.services.spec import ServiceSpec

    detail = cast("ModelDetail", Client.from_environment().get(model_path(ref)))
    if detail["format"] != "onnx" or detail["main"] is None:
        raise InvalidInput(
            f"{detail['id']} is not an ONNX model but {detail['format']}, which the model server cannot load",
            "Export a service file with `model:` and a command that serves it: docs/serving.md.",
        )
    raw = detail["lineage"].get("features") is not None
    number, name = str(detail["version"]), detail["name"]
    command = server_command(name, number, detail["main"], raw=raw)
    spec = ServiceSpec.from_json(
        {"name": name, "version": number, "ready": READY, "command": command}
    )
    workload = Workload.of_service(spec).leaving_out(without)
    manifest, sources = _files_of(detail)
    record = {"model": detail["id"], "digest": detail["digest"], "files": detail["digest"]}
    return workload, Contents(manifest, sources, None, record), Path()


def _files_of(detail: ModelDetail) -> tuple[Any, dict[str, Path]]:
    """The version's files, each checked against its digest, in a folder that goes with this process."""
    import atexit
    import shutil
    import tempfile

    from console.cli.modelfiles import fetch_all
    from jobs.snapshots.manifest import FileEntry, Manifest

    folder = Path(tempfile.mkdtemp(prefix="qd-export-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    fetch_all(detail["id"], folder)
    entries = [FileEntry(f["path"], 0o644, f["size"], f["sha256"]) for f in detail["contents"]]
    return Manifest.of(entries), {f["sha256"]: folder / f["path"] for f in detail["contents"]}


def _requires(workload: Workload, folder: Path, given: Path | None) -> str | None:
    """The text of a requirements file; None when there is nothing to install."""
    from console.cli.submit import find_python
    from console.exports import packages

    own = workload.job.requirements
    file = given or (folder / own if own is not None else None)
    if file is not None:
        try:
            return file.read_text()
        except OSError as error:
            raise InvalidInput(f"requirements: {file} cannot be read: {error.strerror}") from None
    if workload.ours and workload.job.python is None:
        return packages.closure(sys.executable, packages.SERVER)
    python = find_python(workload.job, folder, os.environ)
    if python is None or not (Path(python).parent.parent / "pyvenv.cfg").exists():
        narrate("nothing is installed: neither requirements nor an environment is known")
        return None
    text, local = packages.frozen(python)
    narrate(f"packages: those of {python}")
    for name in local:
        narrate(f"warning: {name} was installed from a folder or an address, and is left out")
    return text


def _write(objects: list[dict[str, Any]], output: Path | None, as_json: bool) -> None:
    import yaml

    class Plain(yaml.SafeDumper):
        """No anchors: a part that is twice in it is written twice."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    if as_json and output is None:
        emit({"apiVersion": "v1", "kind": "List", "items": objects})
        return
    text = yaml.dump_all(objects, Dumper=Plain, sort_keys=False, allow_unicode=True, width=110)
    if output is None:
        say(text.rstrip())
        return
    guest.refuse("--output")
    try:
        output.write_text(text)
    except OSError as error:
        raise cannot_write(output, error) from None
