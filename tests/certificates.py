"""Certificates of a test's own, signed by themselves, and callers that believe in them."""

from __future__ import annotations

import http.client
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Pair:
    """A certificate with its key in files. `renew` writes another pair over them."""

    def __init__(self, folder: Path, days: float = 90, mark: str = "first") -> None:
        self.cert, self.key = folder / "tls.pem", folder / "tls.key"
        self.renew(days, mark)

    @property
    def files(self) -> dict[str, str]:
        return {"cert": str(self.cert), "key": str(self.key)}

    def renew(self, days: float = 90, mark: str = "second") -> None:
        cert, key = issue(days, mark)
        for path, data in (
            (self.key, key),
            (self.cert, cert),
        ):  # as certbot does: one, then the other
            beside = path.with_suffix(".new")
            beside.write_bytes(data)
            beside.chmod(0o600)
            beside.replace(path)


def issue(days: float, mark: str) -> tuple[bytes, bytes]:
    """Certificate and key in PEM, for localhost, with a name to know it by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, mark)])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    end = datetime.now(UTC) + timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=max(days, 0) + 1))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.PEM), private


def shown(port: int) -> str:
    """The name in the certificate that is shown at a port."""
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    subject = x509.load_pem_x509_certificate(pem.encode()).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def connection(port: int, cert: Path) -> http.client.HTTPSConnection:
    """Of a caller that trusts this certificate alone."""
    context = ssl.create_default_context(cafile=str(cert))
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
