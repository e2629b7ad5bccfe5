"""`qd submit`: a job from a file or from a command line, with its code."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console import guest
from console.cli.ids import Target
from console.cli.options import Json
from console.cli.output import emit, narrate, say
from console.cli.patience import send
from console.client import Client
from jobs.base import interpreters
from jobs.base.errors import InvalidInput, NotFound
from jobs.base.words import counted

if TYPE_CHECKING:
    from console.workdir.athome import Left
    from console.workdir.scan import Scan
    from jobs.spec.job import JobSpec
    from jobs.wire.views import SubmitView

_STDIN = Path("-")
_MUCH = 200 * 2**20
"""Bytes of a work folder from which a person is asked."""


def submit(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="A job file (YAML); - is standard input.", show_default=False
        ),
    ] = None,
    file_option: Annotated[
        Path | None, typer.Option("-f", "--file", metavar="FILE", help="The same.", hidden=True)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes.")] = None,
    procs: Annotated[
        str | None,
        typer.Option(
            "--procs",
            "--procs-per-node",
            metavar="N",
            help="Processes on each node; gpu: one for each GPU.",
        ),
    ] = None,
    launch: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="How ranks find each other: torchrun (for more than one), plain (for one), jax, mpi.",
        ),
    ] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs on each node.")] = None,
    cpus: Annotated[float | None, typer.Option(help="CPUs on each node.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory on each node: 8GiB.")] = None,
    accelerator: Annotated[str | None, typer.Option(help="GPU model: H100.")] = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Container image that the ranks run in."),
    ] = None,
    mount: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH[:TO][:ro]",
            help="A path of the node that the container sees; repeatable.",
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K[=V]", help="An environment variable; without a value, yours; repeatable."
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A variable whose value comes from your environment; repeatable."
        ),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            metavar="PYTHON",
            help="Interpreter: a path, an environment's folder or a version (3.12); default: the active one.",
        ),
    ] = None,
    workdir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder to send; by default the current one. - is a tar archive on stdin.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Send this too, even if git ignores it; repeatable."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Send a large folder without asking.")] = False,
    no_workdir: Annotated[bool, typer.Option("--no-workdir", help="Send no folder.")] = False,
    priority: Annotated[int | None, typer.Option(help="0 to 100; higher goes first.")] = None,
    timeout: Annotated[str | None, typer.Option(metavar="SPAN", help="Time limit: 2h.")] = None,
    max_restarts: Annotated[
        int | None, typer.Option(help="How many restarts after failures.")
    ] = None,
    on_stall: Annotated[
        str | None,
        typer.Option(metavar="ACTION", help="When it stalls: warn (default), restart or fail."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="FROM",
            help="Later attempts begin with what was submitted (snapshot), or also with what the one "
            "before wrote in the work folder (workdir).",
        ),
    ] = None,
    stall_after: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="It counts as stalled when silent for this long."),
    ] = None,
    on_node_loss: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="When a node is lost: restart once the lease has ended, or wait until it is certainly down.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, as quarterdeck.seed.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="K=V", help="A tag; repeatable.")] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH", help="A file or folder to store when it succeeds; repeatable."
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(metavar="SET|NAME=RE", help="Patterns for metrics in its log; repeatable."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="A name for this submission: the same key never makes a second job."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and submit nothing.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it ends.")] = False,
    as_json: Json = False,
) -> None:
    """Submit a job: a file, or a command after `--`.

    \b
      qd submit job.yaml --priority 70
      qd submit --gpus 2 --watch -- python train.py --epochs 5

    Prints the job's id. With --wait and --watch the exit code is that of the first failing rank.
    Options override the file.
    """
    from jobs.spec.job import from_options, load_job

    client = Client.from_environment()
    command: list[str] = ctx.meta.get("command", [])
    if file is None:
        file = file_option
    if workdir == _STDIN:
        workdir = Path(tempfile.mkdtemp(prefix="qd-submit-", dir=guest.folder()))
        ctx.call_on_close(partial(shutil.rmtree, workdir, ignore_errors=True))
        _unpack(workdir)
        file = workdir / file if file is not None and file != _STDIN else file
    elif file is None and not command and guest.folder() is not None and not sys.stdin.isatty():
        file = _STDIN
    _usage(file, command, workdir, no_workdir)
    base = _typed() if file == _STDIN else load_job(guest.inside(file))[0] if file else None
    if file == _STDIN:
        file = None  # paths in it count from here
    secrets = list(dict.fromkeys([*(base.secrets if base else ()), *(secret or ())]))
    options = {
        "name": name,
        "nodes": nodes,
        "procs_per_node": int(procs) if procs is not None and procs.isdigit() else procs,
        "launch": launch,
        "gpus": gpus,
        "cpus": cpus,
        "memory": memory,
        "accelerator": accelerator,
        "env": [variable(item, os.environ) for item in env] if env else None,
        "secrets": secrets or None,
        "include": [*(base.include if base else ()), *include] if include else None,
        "python": python,
        "image": image,
        "mounts": [*(base.mounts if base else ()), *mount] if mount else None,
        "priority": priority,
        "timeout": timeout,
        "max_restarts": max_restarts,
        "resume": resume,
        "on_node_loss": on_node_loss,
        "stall_action": on_stall,
        "stall_after": stall_after,
        "seed": seed,
        "tags": tag,
        "outputs": output,
        "metrics": metrics,
    }
    if python is not None:
        # An option counts from where it is typed; `python:` in a file from the work folder.
        here = Path(python).expanduser()
        known = here.exists() and client.remote is None
        options["python"] = str(here.absolute()) if known else python
    spec = from_options(command, base, **options)
    folder = _folder(spec, file, workdir, needed=not no_workdir)
    interpreter = spec.python if client.remote else find_python(spec, folder, os.environ)
    if interpreter is not None and client.remote is None:
        _is_there(client, interpreter)
    if interpreter != spec.python:
        spec = from_options([], spec, python=interpreter)
    body: dict[str, Any] = {
        "spec": spec.asked(),
        "key": key or str(uuid.uuid4()),
        "secrets": secret_values(spec.secrets, os.environ),
    }
    scan = None if no_workdir else _scan(guest.inside(folder), spec.include)
    if scan is not None:
        tell_what_travels(scan, folder, ask=not (yes or dry_run))
    if scan is not None and not dry_run:
        from console.cli.upload import send_folder

        body |= send_folder(client, scan, guest.inside(folder), spec.include)
    if dry_run:
        body["dry_run"] = True
    view = cast("SubmitView", send(client, "/v1/jobs", body))
    _tell(view, scan, dry_run, as_json)
    if (watch or wait) and not dry_run:
        _see_through(client, view, spec.world_size, watch=watch, as_json=as_json)


def _typed() -> JobSpec:
    """The job on standard input. Raises InvalidInput."""
    from jobs.spec import yamlfile
    from jobs.spec.job import job_in

    text = sys.stdin.read(yamlfile.MAX_BYTES + 1)
    if len(text) > yamlfile.MAX_BYTES:
        raise InvalidInput("standard input is larger than a job file may be")
    return job_in(yamlfile.parse(text, "<stdin>"))


def _unpack(folder: Path) -> None:
    """The archive on standard input, in a folder of its own. Raises InvalidInput."""
    from console.workdir.scan import limit
    from console.workdir.unpack import unpack

    for warning in unpack(sys.stdin.buffer, folder, limit(os.environ)):
        narrate(f"warning: {warning}")


def _usage(file: Path | None, command: list[str], workdir: Path | None, no_workdir: bool) -> None:
    if file is None and not command:
        raise InvalidInput(
            "nothing to submit", "Give a job file, or a command: `qd submit -- python train.py`."
        )
    if file is not None and command:
        raise InvalidInput(f"both a file ({file}) and a command were given", "Give one of the two.")
    if file is not None and file != _STDIN and not file.exists():
        raise InvalidInput(
            f"there is no file {file}",
            f"To run a command, put -- before it: `qd submit -- {file}`.",
        )
    if workdir is not None and no_workdir:
        raise InvalidInput("--workdir and --no-workdir exclude each other")


def _folder(spec: JobSpec, file: Path | None, workdir: Path | None, *, needed: bool) -> Path:
    """The folder to send: --workdir from here, `workdir:` from where the file is. Raises InvalidInput
    when the current folder was removed, and it is needed."""
    try:
        if workdir is not None:
            return workdir.absolute()
        return (Path.cwd() if file is None else file.absolute().parent) / spec.workdir
    except FileNotFoundError:
        if not needed:
            return Path("/")
        raise InvalidInput(
            "the current folder was removed",
            "Change to another one, or send none with --no-workdir.",
        ) from None


def find_python(spec: JobSpec, folder: Path, environ: Mapping[str, str]) -> str | None:
    """The interpreter for a job's ranks, as an absolute path.

    A relative path counts from the work folder; an absolute one that is not here may be on the nodes,
    and stays as it is. Without one it is that of the active virtual or conda environment, unless the
    job brings requirements, which get an environment of their own.

    Raises InvalidInput for a version, name or folder without an interpreter here.
    """
    if spec.python is not None:
        local = folder / Path(spec.python).expanduser()
        if local.is_absolute() and not local.exists() and Path(spec.python).is_absolute():
            return spec.python
        known = os.sep in spec.python or local.exists()
        try:
            # Not resolved: an interpreter is in its environment by the path of the link to it.
            return os.path.normpath(
                interpreters.find(str(local) if known else spec.python, environ)
            )
        except NotFound as error:
            raise InvalidInput(error.message, error.hint) from None
    if spec.requirements is not None or spec.image is not None:
        return None  # they bring one
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        python = Path(environ.get(variable) or "/nonexistent", "bin", "python")
        if python.exists():
            return str(python)
    return None


def _is_there(client: Client, interpreter: str) -> None:
    """Raises InvalidInput for an interpreter that is not here, when no other machine is in the cluster."""
    if Path(interpreter).exists():
        return
    if len(client.get("/v1/nodes")) <= 1:
        raise InvalidInput(
            f"there is no interpreter {interpreter} on this machine", interpreters.told(os.environ)
        )


def variable(item: str, environ: Mapping[str, str]) -> str:
    """`NAME=VALUE` as it is; a name alone takes its value from here. Raises InvalidInput."""
    if "=" in item or not item.isidentifier():
        return item
    if item not in environ:
        raise InvalidInput(
            f"--env {item}: your environment does not have this variable",
            f"Give its value: `--env {item}=...`.",
        )
    return f"{item}={environ[item]}"


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


def tell_what_travels(scan: Scan, folder: Path, *, ask: bool) -> None:
    """What a work folder sends, in a line; asks a person at a terminal when it is much, or a home."""
    from console.cli.format import size
    from console.workdir.scan import heaviest

    sizes = {entry.path: entry.size for entry in scan.manifest.files}
    what = f"{counted(len(sizes), 'file')}, {size(scan.total_bytes)}"
    first = heaviest(sizes, 1)
    if len(sizes) > 1 and first and first[0][1]:
        what += f", the heaviest {first[0][0]} {size(first[0][1])}"
    narrate(f"the work folder: {what}")
    if scan.left is not None and scan.left.files:
        _tell_what_stays(scan.left)
    at_home = folder.resolve() == Path(os.environ.get("HOME", "/nonexistent")).resolve()
    if ask and (at_home or scan.total_bytes > _MUCH) and sys.stdin.isatty() and sys.stderr.isatty():
        where = "your home folder" if at_home else str(folder)
        typer.confirm(f"Send {where} with the job?", abort=True, err=True)


def _tell_what_stays(left: Left) -> None:
    from console.cli.format import size

    path = max(left.sizes, key=lambda path: left.sizes[path])
    most = "" if left.whole else "more than "
    heaviest = f", the heaviest {path} {size(left.sizes[path])}" if len(left.sizes) > 1 else ""
    what = heaviest or f", {path}"
    pattern = shlex.quote(f"{path}**" if path.endswith("/") else path)
    narrate(
        f"git's rules leave {most}{counted(left.files, 'file')} here, {size(left.total_bytes)}{what}; "
        f"`--include {pattern}` sends it"
    )


def _scan(folder: Path, include: Sequence[str] = ()) -> Scan | None:
    """The work folder, or None when there is nothing in it to send."""
    from console.cli.upload import scanned

    found = scanned(folder, include)
    return None if found.is_empty else found


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
