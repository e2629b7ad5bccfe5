"""Signatures that `ssh-keygen` makes are believed, and ours by `ssh-keygen`."""

from __future__ import annotations

import base64
import hashlib
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from jobs.models import sshsig
from jobs.models.signers import APPROVAL, Signers, read_signers, statement
from jobs.models.sshsig import BadSignature, PublicKey, sign, verify
from tests.openssh import need

MESSAGE = b"these files\n"


def keygen(*words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    need("ssh-keygen")
    return subprocess.run(["ssh-keygen", *words], input=data, capture_output=True, check=False)


def new_key(folder: Path, kind: str = "ed25519", *more: str) -> Path:
    path = folder / kind
    assert keygen("-q", "-t", kind, "-N", "", "-C", "", "-f", str(path), *more).returncode == 0
    return path


def signed(key: Path, message: bytes = MESSAGE, namespace: str = APPROVAL) -> str:
    done = keygen("-Y", "sign", "-n", namespace, "-f", str(key), data=message)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def allowed(line: str) -> Signers:
    signers, problems = read_signers(line)
    assert problems == ()
    return Signers("c", signers)


@pytest.mark.parametrize(
    "kind", [("ed25519",), ("ecdsa", "-b", "256"), ("ecdsa", "-b", "521"), ("rsa", "-b", "2048")]
)
def test_a_signature_of_ssh_keygen_is_believed(tmp_path: Path, kind: tuple[str, ...]) -> None:
    key = new_key(tmp_path, *kind)
    public = key.with_suffix(".pub").read_text().strip()
    signers, text = allowed(f'ann namespaces="{APPROVAL}" {public}'), signed(key)
    found = signers.check(text, MESSAGE, "ann", 0.0)
    assert found.fingerprint.encode() in keygen("-l", "-f", str(key)).stdout
    for message, who in ((MESSAGE + b" ", "ann"), (MESSAGE, "bob"), (b"", "ann")):
        with pytest.raises(BadSignature):
            signers.check(text, message, who, 0.0)
    with pytest.raises(BadSignature, match="made for 'file'"):
        signers.check(signed(key, namespace="file"), MESSAGE, "ann", 0.0)


def test_our_signature_is_believed_by_ssh_keygen(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    text = sign(key, MESSAGE, APPROVAL)
    assert verify(text, MESSAGE, APPROVAL) == sshsig.public_key(key)
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert plainly(tmp_path, f"ann {line}", text)


def plainly(folder: Path, line: str, signature: str, message: bytes = MESSAGE) -> bool:
    """Whether `ssh-keygen -Y verify` believes it."""
    (folder / "allowed").write_text(line + "\n")
    (folder / "sig").write_text(signature)
    done = keygen(
        "-Y", "verify", "-f", str(folder / "allowed"), "-I", "ann", "-n", APPROVAL,
        "-s", str(folder / "sig"), data=message,
    )  # fmt: skip
    return done.returncode == 0


def test_a_security_key_has_to_be_touched(tmp_path: Path) -> None:
    """What such a key makes, built by hand: there is none in a test, but `ssh-keygen` agrees."""
    inner = Ed25519PrivateKey.generate()
    raw = inner.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    kind, application = b"sk-ssh-ed25519@openssh.com", b"ssh:"
    string = sshsig._string
    blob = string(kind) + string(raw) + string(application)

    def made(flags: int) -> str:
        data = sshsig._signed(APPROVAL, "sha512", MESSAGE)
        tail = bytes([flags]) + struct.pack(">I", 7)
        digest = hashlib.sha256(application).digest() + tail + hashlib.sha256(data).digest()
        signature = string(kind) + string(inner.sign(digest)) + tail
        parts = (blob, APPROVAL.encode(), b"", b"sha512", signature)
        body = base64.b64encode(b"SSHSIG\0\0\0\1" + b"".join(map(string, parts))).decode()
        return f"{sshsig._BEGIN}\n{body}\n{sshsig._END}\n"

    line = f"ann {kind.decode()} {base64.b64encode(blob).decode()}"
    assert verify(made(1), MESSAGE, APPROVAL) == PublicKey(blob)
    assert plainly(tmp_path, line, made(1))
    with pytest.raises(BadSignature, match="touched"):
        verify(made(0), MESSAGE, APPROVAL)


def test_what_is_no_signature_is_told_so(tmp_path: Path) -> None:
    text = signed(new_key(tmp_path))
    lines = text.splitlines()
    cut = "\n".join([lines[0], *lines[1:3], lines[-1]])
    body = base64.b64decode("".join(lines[1:-1]))
    longer = "\n".join([lines[0], base64.b64encode(body + b"x").decode(), lines[-1]])
    for bad in ("", "x", cut, longer, text.replace("A", "!", 1), text + "x", "x" * 100_000):
        with pytest.raises(BadSignature):
            verify(bad, MESSAGE, APPROVAL)
    for at in range(10, len(body), 7):  # no byte of it may be another one
        flipped = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        armoured = "\n".join([lines[0], base64.b64encode(flipped).decode(), lines[-1]])
        try:
            assert verify(armoured, MESSAGE, APPROVAL) != PublicKey(b"")
        except BadSignature:
            continue
        pytest.fail(f"byte {at} may be changed")


def test_allowed_signers(tmp_path: Path) -> None:
    public = new_key(tmp_path).with_suffix(".pub").read_text().strip()
    text = f"""
# people
ann,*@lab.example {public} a comment
bob,!bob@bad namespaces="file,quarterdeck-*",valid-after="20260101Z",valid-before="20270101Z" {public}
ca cert-authority {public}
eve valid-after="20260101" {public}
nobody
"""
    signers, problems = read_signers(text)
    assert [one.principals[0] for one in signers] == ["ann", "bob"]
    assert [problem.split(":")[0] for problem in problems] == ["line 5", "line 6", "line 7"]
    ann, bob = signers
    assert ann.is_for("x@lab.example", APPROVAL, 0.0)
    assert not ann.is_for("x@lab.example.org", APPROVAL, 0.0)
    inside, outside = 1_780_000_000.0, 1_800_000_000.0
    assert bob.is_for("bob", APPROVAL, inside)
    assert not bob.is_for("bob", APPROVAL, outside)
    assert not bob.is_for("bob", "git", inside)


def test_the_statement_names_all_that_is_approved() -> None:
    fields = {
        "cluster": "abc", "version": "digits:1", "digest": "sha256:" + "ab" * 32, "decision": "approve",
        "evidence": "sha256:e", "comment": "größe \"x\"\n", "user": "ann",
    }  # fmt: skip
    whole = statement(**fields)
    assert len({whole, *(statement(**{**fields, name: "other"}) for name in fields)}) == 8
