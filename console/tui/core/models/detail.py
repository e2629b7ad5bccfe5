"""Everything about a version, as a page. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from console.text import neutralise
from console.tui.core.draw.facts import fact, section
from console.tui.core.draw.format import many, number, size
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import Line, fit, line, wrap
from console.tui.core.models.list import state_words
from jobs.wire.modelviews import ApprovalView, EvidenceView, ModelDetail

FILES_SHOWN = 50
"""`qd model show` has all of them, as JSON."""


def detail_lines(detail: ModelDetail, width: int, glyphs: Glyphs) -> list[Line]:
    """What it is, what the gate and people say of it, where it comes from, its files."""
    return [
        *_head(detail, width, glyphs),
        *(_gate(detail["gates"][0], width, glyphs) if detail["gates"] else _no_gate(detail)),
        *section("Said of it", _decisions(detail, width, glyphs)),
        *section("Metrics", _metrics(detail, width)),
        *section("Lineage", _lineage(detail["lineage"], width)),
        *section("Files", _files(detail, width, glyphs)),
    ]


def _head(detail: ModelDetail, width: int, glyphs: Glyphs) -> list[Line]:
    said, tone = state_words(detail["state"], glyphs)
    held = f"{size(detail['size'])} in {many(detail['files'], 'file')}, {detail['format']}"
    out = [line((neutralise(detail["id"]), "strong"), "  ", (said, tone))]
    out += fact("reason", detail["reason"], width)
    out += fact("approvals", f"{detail['approvals']} of {detail['approvals_needed']}", width)
    out += fact("aliases", " ".join(detail["aliases"]) or "none", width, "key")
    out += fact("digest", detail["digest"], width)
    out += fact("files", held, width)
    out += fact("registered", f"{_at(detail['created_at'])} by {detail['user']}", width)
    out += fact("label", detail["label"] or "", width)
    out += fact("tags", ", ".join(f"{k}={v}" for k, v in detail["tags"].items()), width)
    for path, why in detail["pickles"]:
        out += fact("pickle", f"{path}: {why}", width, "error")
    return out


def _at(text: str) -> str:
    """Local date and time."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")


def _no_gate(detail: ModelDetail) -> list[Line]:
    return section("Gate", [line(("  No gate has been run on it.", "dim"))])


def _gate(evidence: EvidenceView, width: int, glyphs: Glyphs) -> list[Line]:
    """The newest result, condition by condition: what was asked, and what was measured."""
    document = evidence["document"]
    told, tone = ("passed", "ok") if evidence["passed"] else ("failed", "error")
    body = [
        line(
            ("  ", ""),
            (neutralise(document["gate"]["name"]), ""),
            (f" {told}", tone),
            (f"  {_at(evidence['at'])} {glyphs.dot} {evidence['evidence'][:19]}", "dim"),
        )
    ]
    if not evidence["sound"]:
        body.append(line(("  This result was changed after it was stored.", "error")))
    asked = max(20, (width - 16) // 2)
    rest = width - asked - 15
    for one in document["conditions"]:
        sign, tone = (glyphs.ok, "ok") if one["passed"] else (glyphs.failed, "error")
        for index, why in enumerate(wrap(neutralise(one["why"]), rest) or [""]):
            first = index == 0
            body.append(
                line(
                    (f"  {sign} " if first else "    ", tone),
                    (fit(one["asked"] if first else "", asked, ellipsis=glyphs.ellipsis), ""),
                    (f" {number(one['measured']) if first else '':>8}  ", "strong"),
                    (why, "dim"),
                )
            )
    return section("Gate", body)


def _decisions(detail: ModelDetail, width: int, glyphs: Glyphs) -> list[Line]:
    out: list[Line] = []
    for one in detail["decisions"]:
        sign, tone = (glyphs.ok, "ok") if one["decision"] == "approve" else (glyphs.failed, "error")
        who = f"{one['user']} {'approves' if one['decision'] == 'approve' else 'rejects'}"
        facts = [_state(one), _at(one["at"])]
        about = f" {glyphs.dot} ".join(part for part in facts if part)
        out.append(line((f"  {sign} ", tone), neutralise(who), (f"  {neutralise(about)}", "dim")))
        out += [line(f"    {piece}") for piece in wrap(neutralise(one["comment"]), width - 4)]
    return out


def _state(one: ApprovalView) -> str:
    if one["revoked_at"]:
        why = f": {one['revoked_why']}" if one["revoked_why"] else ""
        return f"taken back by {one['revoked_by']}{why}"
    parts = []
    if one["decision"] == "approve":
        parts.append("counts" if one["counts"] else "does not count")
    if one["expires_at"]:
        parts.append(f"until {_at(one['expires_at'])}")
    if one["signature"] is not None:
        parts.append("signed" if one["signer"] else "its signature does not hold")
    return ", ".join(parts)


def _metrics(detail: ModelDetail, width: int) -> list[Line]:
    return [
        line(("  ", ""), (fit(name, min(30, width - 12)), "dim"), f" {number(value)}")
        for name, value in detail["metrics"].items()
    ]


def _lineage(lineage: Mapping[str, Any], width: int) -> list[Line]:
    if lineage["kind"] != "run":
        return fact("origin", str(lineage.get("origin") or ""), width)
    git, sweep = lineage.get("git") or {}, lineage.get("sweep")
    changed = " with changes" if git.get("dirty") else ""
    commit = f"{git.get('commit', '')[:12]} {git.get('branch', '')}{changed}" if git else ""
    out = fact("run", f"{lineage['run']} {lineage['name']}, by {lineage['user']}", width)
    out += fact("sweep", f"{sweep['id']}, trial {sweep['trial']}" if sweep else "", width)
    out += fact("git", commit, width)
    out += fact("snapshot", (lineage.get("snapshot") or "")[:19], width)
    out += fact("data", _text(lineage.get("data")), width)
    out += fact("features", (lineage.get("features") or {}).get("version", ""), width)
    out += fact("params", _text(lineage.get("params")), width)
    return out + fact("command", _text(lineage.get("command")), width)


def _text(value: Any) -> str:
    if not value:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _files(detail: ModelDetail, width: int, glyphs: Glyphs) -> list[Line]:
    names = max(10, width - 24)
    out = [
        line(
            ("  ", ""),
            fit(one["path"], names, ellipsis=glyphs.ellipsis),
            (f" {size(one['size']):>5}  {one['sha256'][:12]}", "dim"),
        )
        for one in detail["contents"][:FILES_SHOWN]
    ]
    if (more := len(detail["contents"]) - FILES_SHOWN) > 0:
        out.append(line((f"  and {more} more", "dim")))
    return out
