"""TLS contexts for checks."""

from __future__ import annotations

import ssl

from lbcore.settings import CheckTls

__all__ = ["context_of"]


def context_of(tls: CheckTls) -> ssl.SSLContext:
    """What the settings trust. Raises `OSError` where the certificates cannot be read."""
    context = ssl.create_default_context(cafile=tls.ca_file or None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
