"""TLS of the gRPC port: its certificate and the roots it trusts, read from files, and read again when they change.

New connections get the newest that is whole; a pair that does not fit together, or a file that cannot be read, leaves
the last good one in use. gRPC asks for the certificate at each handshake, on a thread of its own, so it is given what
is ready (gRPC Python, dynamic_ssl_server_credentials).
"""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lbcore.access import ServerTls
from lbcore.errors import ConfigError
from lbcore.service.identity import Trust

__all__ = ["ServerCertificates"]

logger = logging.getLogger(__name__)


class ServerCertificates:
    """What the port shows and trusts.

    `trust` is None where no client needs a certificate; it is another object when anything in it has changed.
    `not_after` is when the port's certificate ends; `failures` counts files that could not be used.

    Raises `ConfigError` where they are bad at the start.
    """

    def __init__(self, settings: ServerTls) -> None:
        self.settings = settings
        self.failures = 0
        self.trust: Trust | None = None
        self._content: tuple[bytes, ...] = ()
        self._reported = ""
        self._take(_read(settings))

    def credentials(self) -> grpc.ServerCredentials:
        """For the port; they follow the files."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            lambda: self._configuration,
            require_client_authentication=bool(self.settings.client_ca_file),
        )

    def refresh(self) -> bool:
        """Looks at the files again; returns whether something has changed."""
        try:
            content = _read(self.settings)
            if content == self._content:
                return False
            self._take(content)
        except ConfigError as wrong:
            if str(wrong) != self._reported:
                self._reported = str(wrong)
                self.failures += 1
                logger.error("%s\nthe last good certificates stay in use", wrong)
            return False
        self._reported = ""
        logger.info("%s: in use, until %s", self.settings.certificate_file, self.not_after)
        return True

    def _take(self, content: tuple[bytes, ...]) -> None:
        certificate, key, roots, revocation_lists = content
        leaf = _leaf(self.settings, certificate)
        _check_key(self.settings, leaf, key)
        if self.settings.client_ca_file and content[2:] != self._content[2:]:
            self.trust = _trust(self.settings, roots, revocation_lists)
        self.not_after: datetime.datetime = leaf.not_valid_after_utc
        self._configuration = grpc.ssl_server_certificate_configuration([(key, certificate)], roots or None)
        self._content = content


def _read(settings: ServerTls) -> tuple[bytes, ...]:
    fields = ("certificate_file", "private_key_file", "client_ca_file", "client_crl_file")
    mistakes: list[str] = []
    contents: list[bytes] = []
    for field in fields:
        path = getattr(settings, field)
        try:
            contents.append(Path(path).read_bytes() if path else b"")
        except (OSError, ValueError) as wrong:  # ValueError: a NUL in the path
            mistakes.append(_mistake(settings, field, getattr(wrong, "strerror", None) or str(wrong)))
    if mistakes:
        raise ConfigError(tuple(mistakes))
    return tuple(contents)


def _leaf(settings: ServerTls, certificate: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(certificate)[0]
    except ValueError:
        raise ConfigError((_mistake(settings, "certificate_file", "expected certificates in PEM"),)) from None


def _check_key(settings: ServerTls, leaf: x509.Certificate, key: bytes) -> None:
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        what = "expected an unencrypted private key in PEM"
        raise ConfigError((_mistake(settings, "private_key_file", what),)) from None
    if private.public_key() != leaf.public_key():
        what = f"expected the key of the certificate in {settings.certificate_file!r}, found another one"
        raise ConfigError((_mistake(settings, "private_key_file", what),))


def _trust(settings: ServerTls, roots: bytes, revocation_lists: bytes) -> Trust:
    try:
        Trust(roots)
    except ValueError:
        raise ConfigError((_mistake(settings, "client_ca_file", "expected certificates in PEM"),)) from None
    try:
        return Trust(roots, revocation_lists)
    except ValueError:
        raise ConfigError((_mistake(settings, "client_crl_file", "expected revocation lists in PEM"),)) from None


def _mistake(settings: ServerTls, field: str, what: str) -> str:
    return f"tls.{field} {getattr(settings, field)!r}: {what}"
