"""Taking in a service: check what it asks for against what is here, then deploy it; and asking one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

from sqlmodel import Session

from agents.controller.commands.acting import Done, act
from agents.controller.commands.submitting import check_fits, stored_manifest
from agents.controller.controller import Controller
from agents.controller.services.kept import Address
from jobs.base.errors import Conflict, InvalidInput, NotAllowed, Unreachable
from jobs.features.declaration import FOLDER as FEATURES
from jobs.features.names import parse_ref as parse_features
from jobs.features.serving import READY, server_command
from jobs.models.names import ModelRef, parse_ref, version_name
from jobs.models.signers import Signers
from jobs.services import rollout as ro
from jobs.services.spec import ServiceSpec
from jobs.store import features, models
from jobs.store.modeltables import ModelVersionRow
from jobs.store.writing import Caller
from jobs.wire.serviceviews import DeploymentView, PredictView, TargetName

PORTS = range(8600, 9000)
"""Where services listen that ask for no port of their own."""
PATIENCE = 60.0
"""Seconds that one request of `qd predict` may take."""


async def deploy_model(
    controller: Controller,
    who: Caller,
    *,
    ref: str,
    options: Mapping[str, Any],
    target: TargetName,
) -> DeploymentView:
    """Serve a version of a model with our model server. Production takes only what is approved now; what
    is refused is recorded.

    Args:
        options: fields of a service over those that follow from the model.

    Raises:
        NotFound: no such version.
        NotAllowed: it is not approved. Conflict: it is archived, or another one is being rolled out.
        InvalidInput: it is no ONNX model, or nothing here can serve it.
    """
    wanted, signers = parse_ref(ref), await controller.signers()

    def decide(session: Session, now: float) -> Done[Version]:
        return Done(servable(session, wanted, target, now, signers))

    version = await act(controller, who, "service.deploy", f"{ref}@{target}", decide)
    spec = ServiceSpec.from_json(model_service(version, options))
    manifest = stored_manifest(controller, version.digest)
    check_fits(controller, spec.job(version.number))
    exactly = ModelRef(wanted.name, number=int(version.number))
    return await controller.services.deploy(
        spec,
        target,
        who,
        port=_port(controller, spec, target),
        snapshot=version.digest,
        size=(len(manifest.files), manifest.total_bytes) if manifest is not None else None,
        digest=version.digest,
        check=lambda session: servable(session, exactly, target, controller.now(), signers),
    )


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a model that may be served. `main` is the file to load. `raw`: features are among its
    files, so that it takes raw rows."""

    model: str
    number: str
    digest: str
    main: str
    raw: bool = False

    @property
    def words(self) -> list[str]:
        """What tells our programs of its features."""
        return ["--transform", FEATURES] if self.raw else []


def allowed(
    session: Session, ref: ModelRef, target: TargetName, now: float, signers: Signers
) -> ModelVersionRow:
    """The version, if it may be served there now.

    Raises NotFound, Conflict when it is archived, and NotAllowed when production needs its approval.
    """
    model, row = models.get_version(session, ref)
    name = version_name(model.name, row.number)
    if row.archived_at is not None:
        raise Conflict(f"{name} is archived", "Deploy a version that is not.")
    where = models.standing_of(session, model, row, now, signers)
    if target == "production" and not where.approved:
        raise NotAllowed(
            f"{name} may not be deployed to production: {where.reason}",
            f"`qd model show {name}` says what it needs; --to staging takes it as it is.",
        )
    return row


def servable(
    session: Session, ref: ModelRef, target: TargetName, now: float, signers: Signers
) -> Version:
    """The version, if our model server may serve it there now. Raises as `deploy_model` does."""
    row = allowed(session, ref, target, now, signers)
    name = version_name(ref.name, row.number)
    if row.format != "onnx" or row.main is None:
        raise InvalidInput(
            f"{name} is not an ONNX model but {row.format}, which the model server cannot load",
            f"Write a service file with `model: {name}` and a command that serves it: docs/serving.md.",
        )
    return Version(ref.name, str(row.number), row.digest, row.main, _raw(session, name, row))


def _raw(session: Session, name: str, row: ModelVersionRow) -> bool:
    """Whether a version has features. Raises InvalidInput for those that cannot be served."""
    carried = row.lineage.get("features")
    if carried is None:
        return False
    if not features.get(session, parse_features(carried["version"])).declaration["rowwise"]:
        raise InvalidInput(
            f"{name} has the features {carried['version']}, which look at other rows "
            "(`rowwise: false`), so a request cannot have them",
            "Serve features that need nothing but the row itself.",
        )
    return True


def model_service(version: Version, options: Mapping[str, Any]) -> dict[str, Any]:
    """The service that serves a version. Raises InvalidInput when nobody said by which interpreter, and
    the controller's own cannot."""
    if "command" in options or "version" in options:
        raise InvalidInput("a model has its own command and version")
    own = options.get("requirements") or options.get("image")  # they bring an interpreter
    python = options.get("python") or (None if own else server_python())
    named = {} if python is None else {"python": python}
    return {
        "name": version.model,
        "ready": READY,
        **named,
        **options,
        "version": version.number,
        "command": server_command(version.model, version.number, version.main, raw=version.raw),
    }


def server_python() -> str:
    missing = [name for name in ("onnxruntime", "uvicorn") if find_spec(name) is None]
    if missing:
        raise InvalidInput(
            f"the model server needs {' and '.join(missing)}, which the controller's interpreter "
            "does not have",
            "`pip install 'quarterdeck[serve]'` on every node, or name one that has them with --python.",
        )
    return sys.executable


async def deploy(
    controller: Controller,
    who: Caller,
    *,
    spec: Mapping[str, Any],
    target: TargetName,
    snapshot: str | None,
) -> DeploymentView:
    """Record a release, durably, and return; rolling it out is the controller's business. The model that
    it names is held to what `deploy_model` holds its own to.

    Raises:
        InvalidInput: the spec is wrong, its snapshot is not here, its port is another service's, or no
            node could ever run a replica.
        NotFound: no such model. NotAllowed: it is not approved.
        Conflict: another release is being rolled out, or the model is archived.
    """
    checked = await asyncio.to_thread(ServiceSpec.from_json, dict(spec))
    digest, check = None, None
    if checked.model is not None:
        checked, digest, check = await _of_a_model(controller, who, checked, checked.model, target)
    job = checked.job(checked.version or "1")
    manifest = await asyncio.to_thread(stored_manifest, controller, snapshot)
    check_fits(controller, job)
    return await controller.services.deploy(
        checked,
        target,
        who,
        port=_port(controller, checked, target),
        snapshot=snapshot,
        size=(len(manifest.files), manifest.total_bytes) if manifest is not None else None,
        digest=digest,
        check=check,
    )


async def _of_a_model(
    controller: Controller, who: Caller, spec: ServiceSpec, ref: str, target: TargetName
) -> tuple[ServiceSpec, str, Callable[[Session], object]]:
    """A program that serves a version of a model: with the exact version, its digest, and what is checked
    once more when the release is recorded."""
    wanted, signers = parse_ref(ref), await controller.signers()

    def decide(session: Session, now: float) -> Done[ModelVersionRow]:
        return Done(allowed(session, wanted, target, now, signers))

    row = await act(controller, who, "service.deploy", f"{ref}@{target}", decide)
    exactly = ModelRef(wanted.name, number=row.number)
    pinned = await controller.datasets.pinned_models({"model": exactly})
    more = pinned if spec.version is not None else {**pinned, "version": str(row.number)}
    return (
        ServiceSpec.from_json(spec.to_json() | more),
        row.digest,
        lambda session: allowed(session, exactly, target, controller.now(), signers),
    )


def _port(controller: Controller, spec: ServiceSpec, target: TargetName) -> int:
    """Where the front is to listen, for a name that is new."""
    given = controller.services.ports()
    if spec.port is not None:
        owner = given.get(spec.port)
        if owner is not None and owner != (spec.name, target):
            raise InvalidInput(
                f"port: {spec.port} is used by {owner[0]} at {owner[1]}", "Choose another."
            )
        return spec.port
    for port in PORTS:
        if port not in given and _is_free(port):
            return port
    raise Conflict(f"no port from {PORTS.start} to {PORTS.stop - 1} is free", "Give `port:`.")


def _connection(where: Address) -> http.client.HTTPConnection:
    if where.sha256 is None:
        return http.client.HTTPConnection(where.host, where.port, timeout=PATIENCE)
    return _Pinned(where, _unchecked())


def _unchecked() -> ssl.SSLContext:
    """Names and issuers are not looked at: `_Pinned` wants one certificate alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class _Pinned(http.client.HTTPSConnection):
    """To the front by its address, which its certificate need not name: it is the one that it said it has."""

    def __init__(self, where: Address, context: ssl.SSLContext) -> None:
        super().__init__(where.host, where.port, timeout=PATIENCE, context=context)
        self._sha256 = where.sha256

    def connect(self) -> None:
        super().connect()
        shown = self.sock.getpeercert(binary_form=True) or b""
        if hashlib.sha256(shown).hexdigest() != self._sha256:
            raise OSError("it shows another certificate than the front's; is it being renewed?")


def _is_free(port: int) -> bool:
    """Whether nobody listens there on this host, which is most often the front's too."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


async def steer(
    controller: Controller, who: Caller, name: str, target: str | None, what: str
) -> DeploymentView:
    """Raises NotFound, Conflict, and InvalidInput for what no rollout can be asked."""
    if what not in ("pause", "resume", "abort", "promote", "rollback", "remove"):
        raise InvalidInput(
            f"'{what}' is not an action on a rollout", "Use pause, resume, abort or promote."
        )
    event = ro.Ask(what, who.user)  # type: ignore[arg-type]  # one of those above
    return await controller.services.ask(name, target, event, who)


async def rescale(
    controller: Controller,
    who: Caller,
    name: str,
    target: str | None,
    *,
    replicas: int | None,
    scale: Mapping[str, Any] | None,
) -> DeploymentView:
    """Raises NotFound, Conflict when nothing serves, and InvalidInput unless one of both is given."""
    how = replicas if replicas is not None else scale
    if how is None or (replicas is not None and scale is not None):
        raise InvalidInput(
            "give replicas, or scale", "Either a number, or bounds to scale between."
        )
    return await controller.services.rescale(name, target, how, who)


async def predict(
    controller: Controller,
    name: str,
    target: str | None,
    *,
    path: str | None,
    body: bytes | None,
    headers: Mapping[str, str],
) -> PredictView:
    """One request through the front, as any caller would make it. Without a path it goes to a model's
    own: `infer` with a body, else its metadata.

    Raises:
        NotFound, Conflict: nothing serves under that name.
        Unreachable: the front does not answer.
    """
    where = await controller.services.address(name, target)
    host, port = where.host, where.port
    if path is None:
        model = f"/v2/models/{quote(name, safe='')}"
        path = "/" if not where.is_model else model if body is None else f"{model}/infer"
    sent = dict(headers)
    if where.key is not None and not {"x-api-key", "authorization"} & {n.lower() for n in sent}:
        sent["x-api-key"] = where.key

    def ask() -> PredictView:
        began = time.monotonic()
        connection = _connection(where)
        try:
            connection.request("POST" if body is not None else "GET", path, body, sent)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        finally:
            connection.close()
        return {
            "status": answer.status,
            "type": answer.headers.get_content_type(),
            "seconds": time.monotonic() - began,
            "body": text,
        }

    try:
        return await asyncio.to_thread(ask)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(
            f"{name} does not answer at {host}:{port}: {error}", "`qd deployments` shows its state."
        ) from None
