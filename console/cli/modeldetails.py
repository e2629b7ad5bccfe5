"""One version of a model, told in full to a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from console.cli.details import facts
from console.cli.evaluationview import between
from console.cli.format import local_moment, number, size, span
from console.cli.output import Column, paint, paint_state, say, show
from console.text import neutralise
from jobs.base.words import counted

if TYPE_CHECKING:
    from jobs.wire.evaluationviews import EvaluationView
    from jobs.wire.modelviews import ApprovalView, EvidenceView, ModelDetail

_FILES_SHOWN = 20
_CONDITIONS = [
    Column("GATE", states=True),
    Column("ASKED", flex=True),
    Column("MEASURED", right=True),
    Column("WHY", flex=True),
]


def show_version(detail: ModelDetail) -> None:
    """Write a version: what it is, where it comes from, what was said of it."""
    _head(detail)
    _lineage(detail["lineage"])
    if detail["signature"]:
        say()
        _signature(detail["signature"])
    if detail["metrics"]:
        say()
        show(
            [Column("METRIC", flex=True), Column("VALUE", right=True)],
            [[name, number(value)] for name, value in detail["metrics"].items()],
        )
    say()
    rows = [[file["path"], size(file["size"]), file["sha256"]] for file in detail["contents"]]
    show(
        [Column("FILE"), Column("SIZE", right=True), Column("SHA256", flex=True)],
        rows[:_FILES_SHOWN],
    )
    if len(rows) > _FILES_SHOWN:
        say(f"and {len(rows) - _FILES_SHOWN} more")
    if detail["evaluations"]:
        say()
        _evaluations(detail["evaluations"])
    for evidence in detail["gates"][:1]:
        say()
        show_evidence(evidence)
    if detail["decisions"]:
        say()
        _decisions(detail["decisions"])


def _evaluations(views: list[EvaluationView]) -> None:
    """The newest one on each version of the data, with its metrics; `qd evaluation` shows all of one."""
    newest: dict[str, EvaluationView] = {}
    for view in sorted(views, key=lambda view: view["state"] != "DONE"):
        newest.setdefault(view["data"], view)
    rows = []
    for view in newest.values():
        first = [view["id"], view["data"], view["state"]]
        for name, one in view["metrics"].items():
            rows.append([*first, name, *between(one)])
            first = ["", "", ""]
        if not view["metrics"]:
            rows.append([*first, view["reason"], "", "", ""])
    columns = [Column("EVALUATION"), Column("DATA", flex=True), Column("STATE", states=True)]
    columns += [Column("METRIC", flex=True), Column("VALUE", right=True)]
    show([*columns, Column("95% FROM", right=True), Column("TO", right=True)], rows)


def _head(detail: ModelDetail) -> None:
    label = f" ({detail['label']})" if detail["label"] else ""
    say(
        f"{paint(neutralise(detail['id']) + label, 'bold')}  {paint_state(detail['state'])}"
        f"  {neutralise(detail['reason'])}"
    )
    facts(
        [
            ("digest", detail["digest"]),
            ("aliases", ", ".join(detail["aliases"])),
            ("format", detail["format"]),
            ("size", f"{size(detail['size'])} in {counted(detail['files'], 'file')}"),
            ("registered", f"{local_moment(detail['created_at'])} by {neutralise(detail['user'])}"),
            ("tags", neutralise(", ".join(f"{k}={v}" for k, v in detail["tags"].items()))),
            ("approvals", f"{detail['approvals']} of {detail['approvals_needed']}"),
        ]
    )
    for path, why in detail["pickles"]:
        say(f"{paint('pickle', 'red')}  {neutralise(path)}: {neutralise(why)}")


def _lineage(lineage: Mapping[str, Any]) -> None:
    if lineage["kind"] != "run":
        carried = ("features", _features(lineage))
        facts([("origin", neutralise(str(lineage.get("origin") or ""))), carried])
        return
    git = lineage.get("git") or {}
    sweep = lineage.get("sweep")
    params = lineage.get("params")
    facts(
        [
            (
                "run",
                f"{lineage['run']} {neutralise(lineage['name'])}, by {neutralise(lineage['user'])}",
            ),
            ("sweep", f"{sweep['id']}, trial {sweep['trial']}" if sweep else ""),
            ("snapshot", lineage.get("snapshot") or ""),
            ("git", _git(git) if git else ""),
            ("command", _shown(lineage.get("command"))),
            ("params", _shown(params) if params else ""),
            ("seed", "" if lineage.get("seed") is None else str(lineage["seed"])),
            ("data", _shown(lineage["data"]) if lineage.get("data") else ""),
            ("features", _features(lineage)),
            ("nodes", neutralise(", ".join(lineage.get("nodes") or []))),
        ]
    )


def _features(lineage: Mapping[str, Any]) -> str:
    carried = lineage.get("features")
    return f"{carried['version']} {carried['digest'][:19]}; it takes raw rows" if carried else ""


def _git(git: Mapping[str, Any]) -> str:
    changed = " with changes" if git.get("dirty") else ""
    return neutralise(f"{git.get('commit', '')[:12]} {git.get('branch', '')}{changed}")


def _shown(value: Any) -> str:
    return neutralise(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _signature(signature: Mapping[str, Any]) -> None:
    rows = [
        [side.removesuffix("s"), item["name"], item["dtype"], _shape(item["shape"])]
        for side in ("inputs", "outputs")
        for item in signature[side]
    ]
    show([Column("SIDE"), Column("NAME", flex=True), Column("DTYPE"), Column("SHAPE")], rows)


def _shape(shape: list[Any]) -> str:
    return "×".join("?" if size is None else str(size) for size in shape) or "scalar"


def show_evidence(evidence: EvidenceView) -> None:
    """Write a gate's result, condition by condition."""
    document = evidence["document"]
    verdict = paint("passed", "green") if evidence["passed"] else paint("FAILED", "red")
    say(
        f"gate {neutralise(document['gate']['name'])} {verdict} for {neutralise(document['version'])}, "
        f"{local_moment(evidence['at'])}, evidence {evidence['evidence'][:19]}"
    )
    if not evidence["sound"]:
        say(paint("this result was changed after it was stored", "red"))
    rows = [
        ["holds" if one["passed"] else "fails", one["asked"], number(one["measured"]), one["why"]]
        if one["measured"] is not None
        else ["holds" if one["passed"] else "fails", one["asked"], "-", one["why"]]
        for one in document["conditions"]
    ]
    show(_CONDITIONS, rows)


def _decisions(decisions: list[ApprovalView]) -> None:
    rows = []
    for one in decisions:
        state = "counts" if one["counts"] else ""
        if one["revoked_at"]:
            state = f"taken back by {one['revoked_by']}"
            state += f": {one['revoked_why']}" if one["revoked_why"] else ""
        elif one["expires_at"]:
            state += f" until {local_moment(one['expires_at'])}"
        if one["signature"] is not None:
            signed = (
                f"signed by {one['signer']}" if one["signer"] else "its signature does not hold"
            )
            state = f"{state}, {signed}" if state else signed
        rows.append(
            [local_moment(one["at"]), one["user"], f"{one['decision']}s", state, one["comment"]]
        )
    names = ("AT", "WHO", "SAYS", "STATE", "REASON")
    show([Column(name, flex=name in ("STATE", "REASON")) for name in names], rows)


def show_for_decision(detail: ModelDetail) -> None:
    """What somebody who decides has to see: which bytes, from where, and what the gate says."""
    _head(detail)
    _lineage(detail["lineage"])
    if detail["gates"]:
        show_evidence(detail["gates"][0])
    else:
        say("no gate has been run on it")


def show_policy(policy: Mapping[str, Any]) -> None:
    """Write what versions of a model need."""
    expires = policy["expires"]
    facts(
        [
            ("approvals", str(policy["approvals"])),
            ("submitter may approve", "yes" if policy["submitter"] else "no"),
            ("approvers", neutralise(", ".join(policy["approvers"])) or "everyone"),
            ("an approval counts", "until it is taken back" if expires is None else span(expires)),
            ("gate", policy["gate"] or "none is required"),
            ("signature", "every approval needs one" if policy["signed"] else "not required"),
            ("protected aliases", ", ".join(policy["protected"]) or "none"),
            ("pickle", "taken, and marked" if policy["pickle"] else "refused"),
        ]
    )
