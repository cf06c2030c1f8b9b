"""Who a client is, by its certificate, and whether that certificate holds now.

gRPC verifies a certificate once, at the handshake, and a connection outlives that: authorities go, certificates expire
or are revoked. So `Trust` verifies it again. Sources: RFC 5280; SPIFFE X.509-SVID, 5.2 (exactly one URI).
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

__all__ = ["Trust", "identity_of"]

# gRPC has checked the extensions at the handshake, by its own rules, which may be laxer; here the chain and the time
# count. The library insists on one extension.
_ANY_LEAF = ExtensionPolicy.permit_all()
_ANY_AUTHORITY = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)


def identity_of(certificate: x509.Certificate) -> str:
    """`spiffe://DOMAIN/PATH`, or `dns:NAME` of a certificate that bears one DNS name and no URI; empty if neither.

    A certificate with more names is nobody's: any of them could be what a grant means.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    hosts = names.get_values_for_type(x509.DNSName)
    if uris:
        return uris[0] if len(uris) == 1 and uris[0].startswith("spiffe://") else ""
    return f"dns:{hosts[0]}" if len(hosts) == 1 else ""


class Trust:
    """The roots of clients' certificates, and the revocation lists of their authorities, both in PEM.

    Raises `ValueError` where one cannot be read.
    """

    def __init__(self, roots: bytes, revocation_lists: bytes = b"") -> None:
        self._roots = x509.load_pem_x509_certificates(roots)
        self._lists = [x509.load_pem_x509_crl(each) for each in _blocks(revocation_lists, b"X509 CRL")]
        if revocation_lists and not self._lists:
            raise ValueError("no revocation list in it")

    def refusal(self, leaf: x509.Certificate, between: Sequence[x509.Certificate], now: datetime.datetime) -> str:
        """Why a certificate does not hold at this time; empty if it does. `between` are the authorities sent along."""
        builder = PolicyBuilder().store(Store(self._roots)).time(now)
        builder = builder.extension_policies(ca_policy=_ANY_AUTHORITY, ee_policy=_ANY_LEAF)
        try:
            chain = builder.build_client_verifier().verify(leaf, list(between)).chain
        except VerificationError as wrong:
            if leaf.not_valid_after_utc < now:
                return f"the certificate has expired at {leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
            return f"the certificate is not trusted: {wrong}"
        for certificate, issuer in pairwise(chain):
            if self._revoked(certificate, issuer):
                return f"the certificate {certificate.serial_number:x} is revoked"
        return ""

    def _revoked(self, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        lists = [each for each in self._lists if each.issuer == issuer.subject and _signed(each, issuer)]
        number = certificate.serial_number
        return any(each.get_revoked_certificate_by_serial_number(number) is not None for each in lists)


def _signed(revocation_list: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return revocation_list.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # else TypeError
    except (InvalidSignature, TypeError):
        return False


def _blocks(pem: bytes, label: bytes) -> list[bytes]:
    end = b"-----END " + label + b"-----"
    return [block + end + b"\n" for block in pem.split(end)[:-1]]
