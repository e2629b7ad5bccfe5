"""`qd submit`: a job from a file or from a command line, with its code."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.ids import Target
from console.cli.options import Json
from console.cli.output import emit, narrate, say
from console.client import Client
from jobs.errors import InvalidInput
from jobs.words import counted

if TYPE_CHECKING:
    from jobs.spec import JobSpec
    from jobs.views import SubmitView
    from jobs.workdir import Scan


def submit(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A job file (YAML).", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes.")] = None,
    procs: Annotated[
        int | None, typer.Option("--procs", "--procs-per-node", help="Ranks on each node.")
    ] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs on each node.")] = None,
    cpus: Annotated[float | None, typer.Option(help="CPUs on each node.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory on each node: 8GiB.")] = None,
    accelerator: Annotated[str | None, typer.Option(help="GPU model: H100.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A variable; repeats.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A variable whose value is yours now; repeats."),
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="PATH", help="Interpreter; by default the active one.")
    ] = None,
    workdir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder to send; by default this one.")
    ] = None,
    no_workdir: Annotated[bool, typer.Option("--no-workdir", help="Send no folder.")] = False,
    priority: Annotated[int | None, typer.Option(help="0 to 100; higher goes first.")] = None,
    timeout: Annotated[str | None, typer.Option(metavar="SPAN", help="Stop it after 2h.")] = None,
    max_restarts: Annotated[int | None, typer.Option(help="Restarts after a failure.")] = None,
    on_stall: Annotated[
        str | None,
        typer.Option(metavar="ACTION", help="When it hangs: warn (default), restart or fail."),
    ] = None,
    stall_after: Annotated[
        str | None, typer.Option(metavar="SPAN", help="It hangs when it was silent for so long.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, as quarterdeck.seed.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="K=V", help="A tag; repeats.")] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="A file to keep as an artifact; repeats."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="A name for this submission: the same key never makes a second job."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and submit nothing.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end.")] = False,
    as_json: Json = False,
) -> None:
    """Submit a job: a file, or a command after `--`.

    \b
      qd submit job.yaml --priority 70
      qd submit --gpus 2 --watch -- python train.py --epochs 5

    Prints the job's id. With --wait and --watch the exit code is that of the first failing rank.
    Options are stronger than the file.
    """
    from jobs.spec import from_options, load_job

    client = Client.from_environment()
    command: list[str] = ctx.meta.get("command", [])
    _usage(file, command, workdir, no_workdir)
    base = load_job(file)[0] if file is not None else None
    secrets = list(dict.fromkeys([*(base.secrets if base else ()), *(secret or ())]))
    options = {
        "name": name,
        "nodes": nodes,
        "procs_per_node": procs,
        "gpus": gpus,
        "cpus": cpus,
        "memory": memory,
        "accelerator": accelerator,
        "env": env,
        "secrets": secrets or None,
        "python": python,
        "priority": priority,
        "timeout": timeout,
        "max_restarts": max_restarts,
        "stall_action": on_stall,
        "stall_after": stall_after,
        "seed": seed,
        "tags": tag,
        "outputs": output,
    }
    if python is not None:
        # An option counts from where it is typed; `python:` in a file from the work folder.
        here = Path(python).expanduser()
        known = here.exists() and client.remote is None
        options["python"] = str(here.absolute()) if known else python
    spec = from_options(command, base, **options)
    folder = _folder(spec, file, workdir)
    interpreter = spec.python if client.remote else find_python(spec, folder, os.environ)
    if interpreter != spec.python:
        spec = from_options([], spec, python=interpreter)
    body: dict[str, Any] = {
        "spec": spec.to_json(),
        "key": key or str(uuid.uuid4()),
        "secrets": secret_values(spec.secrets, os.environ),
    }
    scan = None if no_workdir else _scan(folder)
    if scan is not None and not dry_run:
        body |= _code(client, scan)
    if dry_run:
        body["dry_run"] = True
    view = cast("SubmitView", client.act("/v1/jobs", body))
    _tell(view, scan, dry_run, as_json)
    if (watch or wait) and not dry_run:
        _see_through(client, view, spec.world_size, watch=watch, as_json=as_json)


def _usage(file: Path | None, command: list[str], workdir: Path | None, no_workdir: bool) -> None:
    if file is None and not command:
        raise InvalidInput(
            "nothing to submit", "Give a job file, or a command: `qd submit -- python train.py`."
        )
    if file is not None and command:
        raise InvalidInput(f"both a file ({file}) and a command were given", "Give one of the two.")
    if file is not None and not file.exists():
        raise InvalidInput(
            f"there is no file {file}",
            f"To run a command, put -- before it: `qd submit -- {file}`.",
        )
    if workdir is not None and no_workdir:
        raise InvalidInput("--workdir and --no-workdir exclude each other")


def _folder(spec: JobSpec, file: Path | None, workdir: Path | None) -> Path:
    """The folder to send: --workdir from here, `workdir:` from where the file is."""
    if workdir is not None:
        return workdir.absolute()
    return (Path.cwd() if file is None else file.absolute().parent) / spec.workdir


def find_python(spec: JobSpec, folder: Path, environ: Mapping[str, str]) -> str | None:
    """The interpreter for a job's ranks, as an absolute path where it exists here.

    A relative path counts from the work folder; one that is not there may be on the nodes, and
    stays as it is. Without one it is that of the active virtual or conda environment, unless the
    job brings requirements, which get an environment of their own.
    """
    if spec.python is not None:
        local = folder / Path(spec.python).expanduser()
        # Not resolved: an interpreter is in its environment by the path of the link to it.
        return os.path.normpath(local) if local.exists() else spec.python
    if spec.requirements is not None:
        return None
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        python = Path(environ.get(variable) or "/nonexistent", "bin", "python")
        if python.exists():
            return str(python)
    return None


def secret_values(names: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The values of secrets, from the submitter's own environment. Raises InvalidInput."""
    names = list(names)
    missing = [name for name in names if name not in environ]
    if missing:
        raise InvalidInput(
            f"the job asks for {', '.join(missing)}, which your environment does not have",
            f"Set it first: `export {missing[0]}=...`.",
        )
    return {name: environ[name] for name in names}


def _scan(folder: Path) -> Scan | None:
    """The work folder, or None when there is nothing in it to send."""
    from jobs.workdir import scan

    found = scan(folder)
    for warning in found.warnings:
        narrate(f"warning: {warning}")
    return found if found.manifest.files else None


def _code(client: Client, scan: Scan) -> dict[str, Any]:
    from console.cli.upload import send_snapshot

    return {"snapshot": send_snapshot(client, scan), "git": scan.git}


def _tell(view: SubmitView, scan: Scan | None, dry_run: bool, as_json: bool) -> None:
    if as_json:
        emit(view)
    elif not dry_run:
        say(view["id"])
    if dry_run:
        code = "" if scan is None else f" with {counted(len(scan.manifest.files), 'file')}"
        narrate(f"the job is well-formed{code}; nothing was submitted")
    if view["reason"]:
        narrate(view["reason"])
    if not view["created"] and not dry_run:
        narrate(f"{view['id']} was submitted with this key before; it is {view['state']}")


def _see_through(
    client: Client, view: SubmitView, ranks: int, *, watch: bool, as_json: bool
) -> None:
    """Stay until the job ends, and end with its exit code. Ctrl-C only ends the looking."""
    from console.cli import watch as watching
    from console.cli.patience import Patience
    from console.cli.wait import exit_code, until_ended

    job = Target(view["id"])
    try:
        if watch:
            ended = watching.watch(client, job, ranks, as_json=as_json)
        else:
            ended = cast("Any", until_ended(client, job, Patience(client)))
        watching.summary(client, ended)
    except KeyboardInterrupt:
        narrate(
            f"{job.job} runs on; `qd logs -f {job.job}` follows it, `qd cancel {job.job}` stops it"
        )
        raise
    raise typer.Exit(exit_code(client, ended))
