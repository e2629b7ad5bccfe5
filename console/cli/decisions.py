"""What people say of a version: `qd model approve`, `reject`, `revoke`."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from console import guest
from console.cli.models import Reason, Version, model_path, told
from console.cli.options import Json
from console.cli.output import emit, narrate, say
from console.client import Client
from console.text import neutralise
from jobs.base.disk import storage_full
from jobs.base.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from jobs.wire.modelviews import ModelDetail, StatementView

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


Sign = Annotated[bool, typer.Option("--sign", help="Sign it with your SSH key.")]
Key = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The key to sign with, or the .pub of one in an agent.",
        show_default=False,
    ),
]


def approve(
    ref: Version,
    reason: Reason = "",
    sign: Sign = False,
    key: Key = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Approve a version, by its digest and its gate's result.

    What it shows is what is approved: if either has changed by then, it is refused (exit code 6).
    If the model's policy requires a signature, it is signed even without --sign.
    """
    _decide(ref, "approve", reason, sign or key is not None, key, yes, as_json)


def reject(
    ref: Version,
    reason: Reason = "",
    sign: Sign = False,
    key: Key = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Reject a version; it gets no protected alias."""
    _decide(ref, "reject", reason, sign or key is not None, key, yes, as_json)


def _decide(
    ref: str, action: str, reason: str, sign: bool, key: Path | None, yes: bool, as_json: bool
) -> None:
    client = Client.from_environment()
    detail = cast("ModelDetail", client.get(model_path(ref)))
    if not as_json:
        from console.cli.modeldetails import show_for_decision

        show_for_decision(detail)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise InvalidInput(f"{action} {detail['id']}?", "Confirm with --yes.")
        typer.confirm(f"{action} {neutralise(detail['id'])}?", abort=True, err=True)
    body = {
        "digest": detail["digest"],
        "evidence": detail["standing"]["evidence"],
        "comment": reason,
    }
    if sign or (action == "approve" and detail["policy"].get("signed")):
        body["signature"] = _signature(client, detail, action, reason, key)
    told(client.post(model_path(detail["id"], action), body), as_json)


def _signature(
    client: Client, detail: ModelDetail, action: str, reason: str, key: Path | None
) -> str:
    """The person's signature of a statement that says what was shown, and nothing else.

    Raises Conflict when the control plane's statement says something else.
    """
    from console.cli import signing

    guest.refuse("signing, which needs a key of this machine,")
    chosen = signing.find_key(os.environ, key)
    path = model_path(detail["id"], "statement")
    view = cast("StatementView", client.post(path, {"decision": action, "comment": reason}))
    said = json.loads(view["statement"])
    subject = {"name": detail["id"], "digest": {"sha256": detail["digest"].removeprefix("sha256:")}}
    wanted = {
        "decision": action,
        "evidence": detail["standing"]["evidence"],
        "comment": reason,
    }
    predicate = said.get("predicate", {})
    if said.get("subject") != [subject] or wanted != {name: predicate.get(name) for name in wanted}:
        raise Conflict(
            f"the statement to sign for {detail['id']} is not what was shown",
            f"Look at it again: `qd model show {detail['id']}`.",
        )
    return signing.sign(view["statement"].encode(), view["namespace"], chosen)


def approvals(
    ref: Version,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to write them.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Write signed approvals as files that `ssh-keygen -Y verify` checks.

    Each is a statement (NNN-USER.json) with its signature (NNN-USER.json.sig):

    \b
      ssh-keygen -Y verify -f allowed_signers -I USER -n quarterdeck-approval \\
          -s 001-USER.json.sig < 001-USER.json
    """
    detail = cast("ModelDetail", Client.from_environment().get(model_path(ref)))
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in detail["decisions"]:
            if one["signature"] is None or one["statement"] is None:
                continue
            user = re.sub(r"[^\w.-]", "_", one["user"])
            path = folder / f"{one['id']:03}-{user}.json"
            path.write_text(one["statement"], "utf-8", newline="")
            path.with_name(f"{path.name}.sig").write_text(one["signature"])
            written.append(str(path))
    except OSError as error:
        raise storage_full(f"{folder} cannot be written", error) from None
    if as_json:
        emit(written)
        return
    for name in written:
        say(name)
    if not written:
        narrate(f"nothing that was said of {detail['id']} is signed")


def revoke(
    ref: Version,
    reason: Reason = "",
    of: Annotated[
        str | None,
        typer.Option(metavar="USER", help="Revoke this user's decision: for admins."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Revoke an approval or a rejection."""
    body = {"reason": reason, "user": of}
    told(Client.from_environment().post(model_path(ref, "revoke"), body), as_json)
