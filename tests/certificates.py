"""Certificates for tests of TLS: an authority of their own, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey


class Authority:
    """Signs certificates of nodes; they start an hour ago."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(self._key, "authority", [], datetime.timedelta(days=30), authority=True)

    def issue(self, directory: Path, *names: str, days: float = 30) -> Path:
        """Make the directory of a node: tls.crt for ``names`` (IP addresses or host names), tls.key and ca.crt, for everybody to read."""
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._sign(key, "node", [_name(one) for one in names], datetime.timedelta(days=days))
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        for file, content in (("tls.crt", pem(made)), ("tls.key", secret), ("ca.crt", pem(self.certificate))):
            (directory / file).write_bytes(content)
            (directory / file).chmod(0o644)
        return directory

    def _sign(
        self, key: Key, subject: str, names: list[x509.GeneralName], lasts: datetime.timedelta, *, authority: bool = False
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + lasts)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(given: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(given))
    except ValueError:
        return x509.DNSName(given)
