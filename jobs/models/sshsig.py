"""SSH signatures over any message: what `ssh-keygen -Y sign` makes and `-Y verify` checks.

The format is PROTOCOL.sshsig of OpenSSH; keys of security keys (`sk-...`) sign as PROTOCOL.u2f says.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

MAX_SIGNATURE = 16_384
"""Characters of an armoured signature; RSA with 16,384 bits takes half of it."""
_MAGIC, _VERSION = b"SSHSIG", 1
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_WIDTH = 70
_HASHES = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}
_CURVES: dict[str, hashes.HashAlgorithm] = {
    "ecdsa-sha2-nistp256": hashes.SHA256(),
    "ecdsa-sha2-nistp384": hashes.SHA384(),
    "ecdsa-sha2-nistp521": hashes.SHA512(),
}
_RSA: dict[str, hashes.HashAlgorithm] = {
    "rsa-sha2-256": hashes.SHA256(),
    "rsa-sha2-512": hashes.SHA512(),
}
_LEAST_RSA = 2048
_SK_ED25519 = "sk-ssh-ed25519@openssh.com"
_SK_ECDSA = "sk-ecdsa-sha2-nistp256@openssh.com"
_TOUCHED = 1  # the flag of a security key that somebody has touched


class BadSignature(ValueError):
    """The signature is not one of this message by its key, with the reason."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key by its wire form."""

    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"SHA256:{digest}"


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, count: int) -> bytes:
        if count > len(self._data):
            raise BadSignature("it ends in the middle")
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def number(self) -> int:
        return int(struct.unpack(">I", self.take(4))[0])

    def string(self) -> bytes:
        return self.take(self.number())

    def text(self) -> str:
        return self.string().decode("utf-8", "replace")

    def end(self) -> None:
        if self._data:
            raise BadSignature("something follows it")


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _signed(namespace: str, algorithm: str, message: bytes) -> bytes:
    """What the key signs."""
    digest = _HASHES[algorithm](message).digest()
    parts = (namespace.encode(), b"", algorithm.encode(), digest)
    return _MAGIC + b"".join(map(_string, parts))


@functools.lru_cache(maxsize=4096)
def verify(armoured: str, message: bytes, namespace: str) -> PublicKey:
    """The key that has signed this message for this purpose.

    Whose key it is, is another question (`jobs/models/signers.py`). Raises BadSignature.
    """
    reader = _Reader(_unarmoured(armoured))
    if reader.take(len(_MAGIC)) != _MAGIC or reader.number() != _VERSION:
        raise BadSignature("it is no SSH signature")
    key = PublicKey(reader.string())
    purpose, _, algorithm, signature = (
        reader.text(), reader.string(), reader.text(), reader.string()
    )  # fmt: skip
    reader.end()
    if purpose != namespace:
        raise BadSignature(f"it was made for '{purpose[:40]}', not for '{namespace}'")
    if algorithm not in _HASHES:
        raise BadSignature(f"it uses the unknown hash '{algorithm[:40]}'")
    try:
        _check(key, signature, _signed(namespace, algorithm, message))
    except InvalidSignature:
        raise BadSignature("it is not of this text by this key") from None
    except (UnsupportedAlgorithm, ValueError) as error:
        raise BadSignature(str(error) or "its key cannot be read") from None
    return key


def sign(key: Ed25519PrivateKey, message: bytes, namespace: str) -> str:
    """An armoured signature, as `ssh-keygen -Y sign` writes it."""
    blob = public_key(key).blob
    raw = key.sign(_signed(namespace, "sha512", message))
    signature = _string(b"ssh-ed25519") + _string(raw)
    parts = (blob, namespace.encode(), b"", b"sha512", signature)
    data = _MAGIC + struct.pack(">I", _VERSION) + b"".join(map(_string, parts))
    text = base64.b64encode(data).decode()
    lines = [text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH)]
    return "\n".join([_BEGIN, *lines, _END]) + "\n"


def public_key(key: Ed25519PrivateKey) -> PublicKey:
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return PublicKey(base64.b64decode(line.split()[1]))


def _unarmoured(text: str) -> bytes:
    if len(text) > MAX_SIGNATURE:
        raise BadSignature("it is too long")
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise BadSignature("it is no SSH signature")
    try:
        return base64.b64decode("".join(lines[1:-1]), validate=True)
    except (binascii.Error, ValueError):
        raise BadSignature("it is no SSH signature") from None


def _check(key: PublicKey, signature: bytes, data: bytes) -> None:
    """Raises InvalidSignature, or ValueError for a key or signature of another kind."""
    fields = _Reader(key.blob)
    kind = fields.text()
    reader = _Reader(signature)
    made_by, raw = reader.text(), reader.string()
    if kind in (_SK_ED25519, _SK_ECDSA):
        if made_by != kind:
            raise BadSignature("it is of another kind than its key")
        flags, counter = reader.take(1), reader.take(4)
        reader.end()
        if not flags[0] & _TOUCHED:
            raise BadSignature("nobody touched the security key")
        if kind == _SK_ECDSA:
            fields.string()  # the curve, which the kind names already
        point, application = fields.string(), fields.string()
        data = (
            hashlib.sha256(application).digest() + flags + counter + hashlib.sha256(data).digest()
        )
        if kind == _SK_ED25519:
            Ed25519PublicKey.from_public_bytes(point).verify(raw, data)
        else:
            curve = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
            curve.verify(_dss(raw), data, ec.ECDSA(hashes.SHA256()))
        return
    reader.end()
    loaded = load_ssh_public_key(kind.encode() + b" " + base64.b64encode(key.blob))
    if isinstance(loaded, Ed25519PublicKey) and made_by == kind == "ssh-ed25519":
        loaded.verify(raw, data)
    elif isinstance(loaded, ec.EllipticCurvePublicKey) and made_by == kind and kind in _CURVES:
        loaded.verify(_dss(raw), data, ec.ECDSA(_CURVES[kind]))
    elif isinstance(loaded, rsa.RSAPublicKey) and made_by in _RSA:
        if loaded.key_size < _LEAST_RSA:
            raise BadSignature(f"its RSA key has only {loaded.key_size} bits")
        loaded.verify(raw, data, padding.PKCS1v15(), _RSA[made_by])
    else:
        raise BadSignature(f"keys of the kind '{kind[:40]}' are not taken")


def _dss(raw: bytes) -> bytes:
    """ECDSA's two numbers as the library wants them."""
    reader = _Reader(raw)
    r, s = (int.from_bytes(reader.string(), "big") for _ in range(2))
    reader.end()
    return encode_dss_signature(r, s)
