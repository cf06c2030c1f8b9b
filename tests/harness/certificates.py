"""A certificate authority for tests: certificates with SPIFFE ids, names and IPs, valid, expired or revoked."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "Issued", "IssuedFiles"]

_DAY = datetime.timedelta(days=1)


class Issued(NamedTuple):
    """A certificate, with those of the authorities between it and the root, and its key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> IssuedFiles:
        """Writes both to files, each replaced at once."""
        files = IssuedFiles(folder / f"{name}.pem", folder / f"{name}.key")
        for path, content in zip(files, self, strict=True):
            path.with_suffix(".new").write_bytes(content)
            path.with_suffix(".new").rename(path)
        return files

    @property
    def serial_number(self) -> int:
        return x509.load_pem_x509_certificate(self.certificate).serial_number


class IssuedFiles(NamedTuple):
    """Where a certificate and its key are."""

    certificate: Path
    key: Path


class Authority:
    """An authority; `root` is its own certificate in PEM. With `parent` it is one below another."""

    def __init__(self, name: str = "root", parent: Authority | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._parent = parent
        issuer = parent or self
        builder = _builder(self._name, issuer._name, self._key.public_key(), 365 * _DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
        self._certificate = builder.sign(issuer._key, hashes.SHA256())

    @property
    def root(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        *,
        uris: Sequence[str] = (),
        dns: Sequence[str] = (),
        ips: Sequence[str] = (),
        valid_for: datetime.timedelta = _DAY,
    ) -> Issued:
        """A certificate for these; one that is `valid_for` a negative time has expired so long ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(name) for name in dns]
        names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
        builder = _builder(x509.Name([]), self._name, key.public_key(), valid_for)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        chain = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        if self._parent is not None:
            chain += self.root
        return Issued(chain, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def issue_server(self, *dns: str) -> Issued:
        """A certificate for a server on the loopback."""
        return self.issue(dns=["localhost", *dns], ips=["127.0.0.1", "::1"])

    def revocation_list(self, *serial_numbers: int) -> bytes:
        """A CRL with these certificates on it, in PEM."""
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - _DAY).next_update(now + _DAY)
        for number in serial_numbers:
            revoked = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, valid_for: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + valid_for) - _DAY)
        .not_valid_after(now + valid_for)
    )
