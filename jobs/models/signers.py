"""Who may sign what: OpenSSH's allowed signers file, and the statement that an approval signs.

    ann@example.org,ann namespaces="quarterdeck-approval" ssh-ed25519 AAAAC3Nza...

The format is that of ssh-keygen(1), ALLOWED SIGNERS. Certificate authorities are not supported: such
lines are passed over.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from jobs.models.sshsig import BadSignature, PublicKey, verify

APPROVAL = "quarterdeck-approval"
"""The namespace: a signature made for anything else is not an approval."""
_OPTION = re.compile(r'([a-z-]+)(?:="([^"]*)")?,?')
_TIME = re.compile(r"(\d{8})(\d{4}(?:\d{2})?)?(Z?)")
_KEY_KIND = re.compile(r"(?:ssh-|ecdsa-sha2-|sk-)[\w@.-]+")


@dataclass(frozen=True, slots=True)
class Signer:
    """One line: for whom, which key, for which purposes (none: all), and from when until when."""

    principals: tuple[str, ...]
    key: PublicKey
    namespaces: tuple[str, ...] = ()
    after: float | None = None
    before: float | None = None

    def is_for(self, who: str, namespace: str, at: float) -> bool:
        return (
            _matches(who, self.principals)
            and (not self.namespaces or _matches(namespace, self.namespaces))
            and (self.after is None or at >= self.after)
            and (self.before is None or at < self.before)
        )


def _matches(text: str, patterns: Sequence[str]) -> bool:
    """OpenSSH's pattern lists: one has to match, and none that is negated."""
    plain = [pattern.replace("[", "[[]") for pattern in patterns]
    if any(fnmatchcase(text, p[1:]) for p in plain if p.startswith("!")):
        return False
    return any(fnmatchcase(text, p) for p in plain if not p.startswith("!"))


def read_signers(text: str) -> tuple[tuple[Signer, ...], tuple[str, ...]]:
    """The lines of an allowed signers file, and what is wrong with those that were passed over."""
    signers, problems = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            signers.append(_line(line.strip()))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    return tuple(signers), tuple(problems)


def _line(line: str) -> Signer:
    principals, _, rest = line.partition(" ")
    options: dict[str, str | None] = {}
    rest = rest.strip()
    while rest and not _KEY_KIND.match(rest):
        match = _OPTION.match(rest)
        if match is None:
            raise ValueError("it has no key")
        options[match[1]] = match[2]
        rest = rest[match.end() :].lstrip()
    words = rest.split()
    if len(words) < 2:
        raise ValueError("it has no key")
    known = {"namespaces", "valid-after", "valid-before"}
    if other := sorted(set(options) - known):
        raise ValueError(f"'{other[0]}' is not supported")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("its key is not base64") from None
    names = options.get("namespaces")
    return Signer(
        tuple(principals.strip('"').split(",")),
        PublicKey(blob),
        tuple(names.split(",")) if names else (),
        _moment(options.get("valid-after")),
        _moment(options.get("valid-before")),
    )


def _moment(text: str | None) -> float | None:
    """`YYYYMMDD[HHMM[SS]][Z]`. Without Z it is local time for OpenSSH; here it has to be there."""
    if text is None:
        return None
    match = _TIME.fullmatch(text)
    if match is None or not match[3]:
        raise ValueError(f"'{text}' is not a time in UTC, such as 20270131Z")
    clock = (match[2] or "").ljust(6, "0")
    return datetime.strptime(match[1] + clock, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class Signers:
    """Whom the control plane `cluster` believes."""

    cluster: str = ""
    allowed: tuple[Signer, ...] = ()

    def check(self, armoured: str, message: bytes, who: str, at: float) -> PublicKey:
        """The key by which `who` has signed this approval. Raises BadSignature."""
        key = verify(armoured, message, APPROVAL)
        if not any(one.key == key and one.is_for(who, APPROVAL, at) for one in self.allowed):
            raise BadSignature(f"{key.fingerprint} is not an allowed key of {who}")
        return key


def statement(
    *,
    cluster: str,
    version: str,
    digest: str,
    decision: str,
    evidence: str | None,
    comment: str,
    user: str,
) -> bytes:
    """What somebody who approves or rejects signs: an in-toto statement about these files.

    https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
    """
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": version, "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": "urn:quarterdeck:approval:v1",
        "predicate": {
            "cluster": cluster,
            "decision": decision,
            "evidence": evidence,
            "comment": comment,
            "user": user,
        },
    }
    return json.dumps(document, sort_keys=True, ensure_ascii=False, indent=1).encode() + b"\n"
