"""Connections to the service: plain, or over TLS with a certificate that says who this program is.

gRPC Python cannot exchange the certificate of a channel: make a new client before the old certificate ends.
"""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio

from lbcore.client.messages import CHANNEL_OPTIONS
from lbcore.errors import InvalidSetting

__all__ = ["open_aio_channel", "open_channel", "tls_credentials"]


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None = None, *options: tuple[str, int]
) -> grpc.Channel:
    """A channel; plain without credentials. `options` are more of gRPC's."""
    if credentials is None:
        return grpc.insecure_channel(target, options=(*CHANNEL_OPTIONS, *options))
    return grpc.secure_channel(target, credentials, options=(*CHANNEL_OPTIONS, *options))


def open_aio_channel(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """The same for asyncio."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(target, credentials, options=CHANNEL_OPTIONS)


def tls_credentials(
    ca_file: str = "", certificate_file: str = "", private_key_file: str = ""
) -> grpc.ChannelCredentials:
    """Credentials from PEM files: the roots to trust (gRPC's own if empty), and the client's certificate, if any.

    Raises `InvalidSetting` where one cannot be read.
    """
    if bool(certificate_file) != bool(private_key_file):
        raise InvalidSetting("certificate_file and private_key_file: expected both or neither")
    roots, key, certificate = map(_read, (ca_file, private_key_file, certificate_file))
    return grpc.ssl_channel_credentials(roots, key, certificate)


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except (OSError, ValueError) as wrong:
        raise InvalidSetting(f"{path!r}: {getattr(wrong, 'strerror', None) or wrong}") from None
