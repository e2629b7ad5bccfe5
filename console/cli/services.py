"""Services: deploying, listing, steering, asking."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console import guest
from console.cli import edges
from console.cli.format import count, span
from console.cli.options import Json
from console.cli.output import Column, emit, narrate, paint_state, say, show
from console.client import Client, segment
from console.scalewords import scaled
from console.shadowwords import shadowed
from console.text import neutralise
from jobs.base.errors import InvalidInput

if TYPE_CHECKING:
    from jobs.services.spec import ServiceSpec
    from jobs.wire.serviceviews import DeploymentView, PredictView, RolloutView, VersionView

OPEN = ("starting", "shadowing", "stepping", "paused")
_EVERY = 0.3
"""Seconds between two looks at a rollout that is followed."""
_PATIENCE = 5.0
"""Seconds that a command waits for the front to do what was decided."""
_COLUMNS = [
    Column("NAME", flex=True),
    Column("TARGET"),
    Column("VERSION", flex=True),
    Column("STATE", states=True),
    Column("TRAFFIC", right=True),
    Column("READY", right=True),
    Column("REQUESTS", right=True),
    Column("ERRORS", right=True),
    Column("P50", right=True),
    Column("P99", right=True),
    Column("URL"),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A service.", show_default=False)]
Target = Annotated[
    str | None,
    typer.Option("--to", metavar="TARGET", help="staging or production, if deployed to both."),
]


def deploy(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A model (digits:3, digits@best) or a service file (YAML).",
            show_default=False,
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="TARGET", help="staging, production, ssh://HOST/PATH or a fleet's file."
        ),
    ] = "production",
    health: Annotated[
        str | None,
        typer.Option(metavar="CMD", help="With ssh://: what must succeed on the host."),
    ] = None,
    canary: Annotated[
        str | None,
        typer.Option(metavar="STEPS", help="Rising percentages of the requests: 5,25,50."),
    ] = None,
    shadow: Annotated[
        str | None,
        typer.Option(
            metavar="[PERCENT]", help="First compare answers to copies of 10 % of the requests."
        ),
    ] = None,
    agree: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT", help="With --shadow: go on when so many rows are the same."
        ),
    ] = None,
    rest: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Minimum duration of each step.")
    ] = None,
    least: Annotated[
        int | None, typer.Option(help="Minimum number of requests in each step.")
    ] = None,
    truths: Annotated[
        int | None,
        typer.Option(help="Minimum number of answers in each step whose truth is known."),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(help="Name of this version; by default, the number of its release."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="The model's version that a service file serves (llm:4)."
        ),
    ] = None,
    replicas: Annotated[int | None, typer.Option(help="Number of replicas.")] = None,
    scale: Annotated[
        str | None,
        typer.Option(metavar="BOUNDS", help="Scale replicas automatically: 1-4, 0-2, or off."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port where the front listens.")] = None,
    python: Annotated[
        str | None, typer.Option(metavar="PATH", help="Interpreter that serves a model.")
    ] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs of each replica.")] = None,
    cpus: Annotated[float | None, typer.Option(help="CPUs of each replica.")] = None,
    tls_cert: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Certificate on the front's node (PEM, with its chain)."),
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="PATH", help="Its private key, on the front's node.")
    ] = None,
    monitor: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="How often to check for drift: docs/drift.md."),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Share of a model's requests to log (0.1), or off."),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Wait until the rollout is over; exit code 1 unless it succeeded."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Deploy a service, at once or step by step.

    \b
      qd deploy digits:4 --canary 5,25,50 --wait
      qd deploy digits:4 --shadow 10 --canary 5,25,50
      qd deploy service.yaml --to staging
      qd deploy digits:4 --to ssh://pi@shop1/opt/digits

    A model goes to production only while it is approved.
    The new version is ready before the old one loses traffic. With --canary it gets these
    percentages of the requests, step by step, and is rolled back automatically if it fails more of
    them, is slower, or is wrong more often (`qd feedback`). With --shadow it first answers copies of
    requests; callers never get these answers. Ctrl-C leaves the rollout running.
    """
    client = Client.from_environment()
    options: dict[str, Any] = {
        "canary": _steps(canary),
        "shadow": _percent("--shadow", shadow),
        "agree": _percent("--agree", agree),
        "rest": rest,
        "least": least,
        "truths": truths,
        "version": version,
        "model": model,
        "replicas": replicas,
        "scale": _scale(scale),
        "port": port,
        "python": python,
        "resources": _resources(gpus, cpus),
        "tls": _tls(tls_cert, tls_key),
        "monitor": monitor,
        "log": _log(log),
    }
    given = {name: value for name, value in options.items() if value is not None}
    if edges.is_edge(to):
        if given:
            raise InvalidInput(
                f"--{next(iter(given))} does not go with --to {to}", "See docs/edge.md."
            )
        edges.deploy(client, what, to, health, wait=wait, as_json=as_json)
        return
    if health is not None:
        raise InvalidInput("--health goes with --to ssh://HOST/PATH", "A service has `ready:`.")
    body: dict[str, Any] = {"target": _target(to)}
    if Path(what).is_file():
        body |= _from_file(client, guest.inside(Path(what)), given)
    elif what.endswith((".yaml", ".yml")):
        raise InvalidInput(f"there is no file {what}", "Service files: docs/serving.md.")
    else:
        if model is not None:
            raise InvalidInput("--model goes with a service file", f"{what} is a model itself.")
        body |= {"model": what, "spec": given}
    view = cast("DeploymentView", client.act("/v1/deployments", body))
    if wait:
        _follow(client, view, as_json)
    else:
        _shown(view, as_json)


def _log(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    try:
        return {"sample": 0.0 if text == "off" else float(text)}
    except ValueError:
        raise InvalidInput(f"--log: found '{text}'; allowed: a share such as 0.1, or off") from None


def _scale(text: str | None) -> dict[str, int] | bool | None:
    from jobs.services.scaling import bounds

    if text is None:
        return None
    try:
        return False if text == "off" else dict(bounds(text))
    except ValueError as error:
        raise InvalidInput(f"--scale: {error}") from None


def _resources(gpus: float | None, cpus: float | None) -> dict[str, float] | None:
    given = {"gpu": gpus, "cpu": cpus}
    return {name: value for name, value in given.items() if value is not None} or None


def _tls(cert: str | None, key: str | None) -> dict[str, str] | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise InvalidInput("--tls-cert and --tls-key need each other")
    return {"cert": cert, "key": key}


def _from_file(client: Client, file: Path, given: dict[str, Any]) -> dict[str, Any]:
    from jobs.services.spec import ServiceSpec

    spec, folder = _service(client, file)
    data = spec.to_json()
    if "resources" in given:
        given = given | {"resources": data.get("resources", {}) | given["resources"]}
    for name in ("log", "monitor", "scale"):  # what the file says of the rest of it stays
        if isinstance(data.get(name), dict) and name in given and given[name] is not False:
            more = given[name] if isinstance(given[name], dict) else {"every": given[name]}
            given = given | {name: data[name] | more}
    spec = ServiceSpec.from_json(data | given)
    return {"spec": spec.to_json(), **_code(client, folder, spec)}


def _target(text: str) -> str:
    if text not in ("staging", "production"):
        raise InvalidInput(f"--to: found '{text}'; allowed: staging or production")
    return text


def _percent(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text.removesuffix("%"))
    except ValueError:
        raise InvalidInput(f"{option}: found '{text}'; allowed: a percentage such as 10") from None


def _steps(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part.strip().removesuffix("%")) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InvalidInput(f"--canary: found '{text}'; allowed: percents such as 5,25,50") from None


def _service(client: Client, file: Path) -> tuple[ServiceSpec, Path]:
    """The service of a file, with the interpreter that a job would get, and the folder it sends."""
    from console.cli.submit import find_python
    from jobs.services.spec import ServiceSpec, load_service

    spec = load_service(file)
    folder = file.absolute().parent / spec.workdir
    if client.remote is None:  # the interpreters of this machine are of no use elsewhere
        python = find_python(spec.job("1"), folder, os.environ)
        if python != spec.python:
            spec = ServiceSpec.from_json(spec.to_json() | {"python": python})
    return spec, folder


def _code(client: Client, folder: Path, spec: ServiceSpec) -> dict[str, Any]:
    from console.cli.upload import scanned, send_folder

    found = scanned(folder, spec.include)
    if found.is_empty:
        return {}
    return {"snapshot": send_folder(client, found, folder, spec.include)["snapshot"]}


def deployments(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only this service.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List services: versions, traffic, replicas, rollouts."""
    views = cast("list[DeploymentView]", Client.from_environment().get("/v1/deployments"))
    views = [view for view in views if name in (None, view["name"])]
    if as_json:
        emit(views)
    elif not views:
        narrate("nothing is deployed; try `qd deploy FILE` (docs/serving.md)")
    else:
        show(_COLUMNS, [row for view in views for row in _rows(view)])
        for view in views:
            _tell(view)


def _rows(view: DeploymentView) -> list[list[str]]:
    return [_row(view, version) for version in view["versions"]] or [
        [view["name"], view["target"], "-", "-", *["-"] * 6, view["url"]]
    ]


def _row(view: DeploymentView, version: VersionView) -> list[str]:
    return [
        view["name"],
        view["target"],
        version["version"],
        version["state"],
        f"{count(version['traffic'])}%",
        f"{version['healthy']}/{version['replicas']}",
        str(version["requests"]),
        str(version["errors"]),
        _time(version["p50"]),
        _time(version["p99"]),
        view["url"],
    ]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return span(seconds) if seconds >= 10 else f"{seconds * 1000:.3g}ms"


def _tell(view: DeploymentView) -> None:
    """Lines about the rollout, how it is scaled, and what is wrong."""
    rollout = view["rollout"]
    if rollout is not None:
        narrate(f"{view['name']} at {view['target']}: {said(rollout)}")
    for version in view["versions"]:
        if "online" in version:
            from console.cli.monitors import right

            name = f"{view['name']} at {view['target']}"
            narrate(f"{name}: {version['version']} is {right(version['online'])}")
    if view["scaling"] is not None:
        narrate(f"{view['name']} at {view['target']}: {scaled(view['scaling'])}")
    if view["problem"]:
        narrate(f"{view['name']} at {view['target']}: {view['problem']}")


def said(rollout: RolloutView) -> str:
    """Where a rollout is, in a line: its step, its numbers, its reason."""
    what = f"{rollout['version']} is {rollout['phase'].replace('_', ' ')}"
    if rollout["phase"] == "shadowing":
        what = f"{rollout['version']} is a shadow; {_compared(rollout)}"
    elif "shadow" in rollout and rollout["phase"] in ("rolled_back", "aborted"):
        what += f"; as a shadow: {'; '.join(shadowed(rollout['shadow']))}"
    if rollout["phase"] in ("stepping", "paused"):
        errors, slow = rollout["errors"], rollout["slow"]
        what = (
            f"{rollout['version']} has {count(rollout['share'])} % of the requests (step "
            f"{rollout['step'] + 1} of {len(rollout['steps'])}, {rollout['seen']} of "
            f"{rollout['least']} requests); errors {_share(errors['new_bad'], errors['new_seen'])} "
            f"against {_share(errors['old_bad'], errors['old_seen'])}"
        )
        if rollout["edge"] is not None:
            what += (
                f"; over {_time(rollout['edge'])} {_share(slow['new_bad'], slow['new_seen'])} "
                f"against {_share(slow['old_bad'], slow['old_seen'])}"
            )
        wrong = rollout.get("wrong")
        if wrong is not None and (wrong["new_seen"] or rollout["truths"]):
            what += (
                f"; wrong {_share(wrong['new_bad'], wrong['new_seen'])} "
                f"against {_share(wrong['old_bad'], wrong['old_seen'])}"
            )
            if rollout["truths"]:
                what += f" ({rollout['told']} of {rollout['truths']} truths)"
        if rollout["phase"] == "paused":
            what += "; paused"
    return what + (f": {rollout['reason']}" if rollout["reason"] else "")


def _compared(rollout: RolloutView) -> str:
    errors, slow = rollout["errors"], rollout["slow"]
    texts = shadowed(rollout["shadow"]) if "shadow" in rollout else []
    texts.append(
        f"errors {_share(errors['new_bad'], errors['new_seen'])} "
        f"against {_share(errors['old_bad'], errors['old_seen'])}"
    )
    if rollout["edge"] is not None:
        texts.append(
            f"over {_time(rollout['edge'])} {_share(slow['new_bad'], slow['new_seen'])} "
            f"against {_share(slow['old_bad'], slow['old_seen'])}"
        )
    return "; ".join(texts)


def _share(bad: int, seen: int) -> str:
    return f"{100 * bad / seen:.1f} % of {seen}" if seen else "of none yet"


def rollout(
    name: Name,
    verb: Annotated[
        str,
        typer.Argument(metavar="VERB", help="pause, resume, abort or promote.", show_default=False),
    ],
    to: Target = None,
    as_json: Json = False,
) -> None:
    """Steer a rollout: pause, resume, abort or promote."""
    if verb not in ("pause", "resume", "abort", "promote"):
        raise InvalidInput(f"found '{verb}'; allowed: pause, resume, abort or promote")
    _steer(name, verb, to, as_json)


def rollback(name: Name, to: Target = None, as_json: Json = False) -> None:
    """Send all traffic to the previous version again."""
    _steer(name, "rollback", to, as_json)


def undeploy(name: Name, to: Target = None, as_json: Json = False) -> None:
    """Remove a service; requests in progress are finished."""
    _steer(name, "remove", to, as_json)


def _steer(name: str, verb: str, to: str | None, as_json: bool) -> None:
    client = Client.from_environment()
    query = "" if to is None else f"?target={_target(to)}"
    path = f"/v1/deployments/{segment(name)}"
    view = cast("DeploymentView", client.act(f"{path}/{verb}{query}", {}))
    until = time.monotonic() + _PATIENCE
    while not view["settled"] and time.monotonic() < until:
        time.sleep(_EVERY / 6)
        view = cast("DeploymentView", client.get(path, target=view["target"]))
    if not view["settled"]:
        narrate("it is decided; the front has not said yet that it does it")
    _shown(view, as_json)


def _shown(view: DeploymentView, as_json: bool) -> None:
    if as_json:
        emit(view)
        return
    say(f"{neutralise(view['name'])} {view['target']} {neutralise(view['url'])}")
    if view["rollout"] is not None:
        narrate(said(view["rollout"]))


def _follow(client: Client, view: DeploymentView, as_json: bool) -> None:
    """Stay until the rollout is over, and say each thing once."""
    release = max(version["release"] for version in view["versions"])
    version = next(one["version"] for one in view["versions"] if one["release"] == release)
    path, told = f"/v1/deployments/{segment(view['name'])}", ""
    try:
        while True:
            now = cast("DeploymentView", client.get(path, target=view["target"]))
            rollout = now["rollout"]
            assert rollout is not None
            line = f"{rollout['phase']} {rollout['share']} {rollout['reason']}"
            if line != told and not as_json:
                narrate(said(rollout))
            told = line
            if rollout["version"] != version or (now["settled"] and rollout["phase"] not in OPEN):
                break
            time.sleep(_EVERY)
    except KeyboardInterrupt:
        narrate(f"the rollout goes on; `qd deployments {view['name']}` shows it")
        raise
    if as_json:
        emit(now)
    else:
        say(f"{neutralise(now['name'])} {paint_state(rollout['phase'])}")
    raise typer.Exit(0 if rollout["phase"] == "done" else 1)


def predict(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A service; with --batch a model (digits:3, digits@best).",
            show_default=False,
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="The request's body; - for stdin; without it, a GET. With --batch, more files.",
            show_default=False,
        ),
    ] = None,
    path: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where to send it; a model needs none.")
    ] = None,
    to: Target = None,
    batch: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Predict files of CSV, JSON lines or Parquet, or folders."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --batch: a new folder for the results.")
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(help="With --batch: processes that share the files.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(help="With --batch: rows per inference (1024).")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS", help="With --batch: columns of the input, comma-separated."
        ),
    ] = None,
    allow_nan: Annotated[
        bool, typer.Option("--allow-nan", help="With --batch: allow NaN and infinities.")
    ] = False,
    python: Annotated[
        str | None, typer.Option(metavar="PATH", help="With --batch: interpreter on the nodes.")
    ] = None,
    cpus: Annotated[float | None, typer.Option(help="With --batch: CPUs of the job.")] = None,
    gpus: Annotated[float | None, typer.Option(help="With --batch: GPUs of the job.")] = None,
    as_json: Json = False,
) -> None:
    """Send one request to a service, or predict whole files.

    \b
      qd predict digits request.json
      qd predict digits:3 --batch a.csv b.csv --out results --ranks 2

    The exit code is 1 when the answer's status is 400 or more. The same command
    resumes a batch that was stopped or killed. Ctrl-C leaves it running.
    """
    files, more = data or [], (out, ranks, rows, features, python, cpus, gpus, allow_nan or None)
    if batch:
        if path is not None or to is not None:
            raise InvalidInput("--path and --to do not apply to --batch")
        from console.cli.batches import predict_files

        options: dict[str, Any] = {
            "ranks": ranks,
            "rows": rows,
            "features": features.split(",") if features else None,
            "allow_nan": allow_nan or None,
            "python": python,
            "cpus": cpus,
            "gpus": gpus,
        }
        predict_files(name, [*batch, *files], out, options, as_json=as_json)
    if any(option is not None for option in more):
        raise InvalidInput("--out and its options need --batch FILES")
    if len(files) > 1:
        raise InvalidInput("one request has one body", "For many files: --batch FILES --out DIR.")
    client = Client.from_environment()
    body: dict[str, Any] = {} if path is None else {"path": path}
    if files:
        body["body"] = sys.stdin.read() if str(files[0]) == "-" else files[0].read_text()
        body["headers"] = {"content-type": "application/json"}
    query = "" if to is None else f"?target={_target(to)}"
    view = cast("PredictView", client.post(f"/v1/deployments/{segment(name)}/predict{query}", body))
    if as_json:
        emit(view)
    else:
        say(neutralise(_pretty(view)))
        narrate(f"{view['status']} in {_time(view['seconds'])}")
    if view["status"] >= 400:
        raise typer.Exit(1)


def _pretty(view: PredictView) -> str:
    if view["type"] != "application/json":
        return view["body"]
    try:
        return json.dumps(json.loads(view["body"]))
    except ValueError:
        return view["body"]
