"""How an attempt ended: `Outcome`, read from whatever the caller's coroutine returns or raises.

Responses and errors of aiohttp, httpx and grpcio are understood by their shape; none of them is imported for it.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

__all__ = ["Outcome", "outcome_of"]

# Errors that say that a connection broke, or could not be had, beyond those of Python; by module and name.
_BROKEN = (
    ("aiohttp", "ClientConnectionError"),
    ("aiohttp", "ClientPayloadError"),
    ("httpx", "TransportError"),
    ("http.client", "HTTPException"),
)
# aiohttp gives an answer that is no HTTP the status 400, and this as the cause.
_NO_HTTP = (("aiohttp.http_exceptions", "HttpProcessingError"),)
_NOT_CONNECTED = (
    ("aiohttp", "ClientConnectorError"),
    ("httpx", "ConnectError"),
    ("httpx", "ConnectTimeout"),
)
_GRPC_CODES = {
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
}
_PUSHBACK = "grpc-retry-pushback-ms"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt's end.

    Fields:
        result, error: what the coroutine returned, or raised.
        status: an HTTP status, or the name of a gRPC code, where the result or error bears one.
    """

    result: Any = None
    error: BaseException | None = None
    status: int | str | None = None

    @property
    def ok(self) -> bool:
        """Whether the endpoint served it: no error but one that bears a status below 500, and no status above."""
        if isinstance(self.status, int):
            return self.status < 500
        return self.error is None and self.status in (None, "OK")

    @property
    def broken(self) -> bool:
        """Whether no answer came: no connection could be had, it broke, spoke another language, or time was over."""
        kinds = (OSError, EOFError, asyncio.TimeoutError)
        return isinstance(self.error, kinds) or _is_one_of(self.error, _BROKEN) or _is_no_http(self.error)

    @property
    def not_connected(self) -> bool:
        """Whether the endpoint was not even reached, so that it has seen nothing of the request."""
        return isinstance(self.error, ConnectionRefusedError) or _is_one_of(self.error, _NOT_CONNECTED)

    @property
    def pushback(self) -> float | None:
        """Seconds after which a gRPC server wants to be asked again; negative: never; None: it says nothing.

        Source: gRFC A6. What is no number means never, too.
        """
        trailing = getattr(self.error, "trailing_metadata", None)
        for name, value in (trailing() or ()) if callable(trailing) else ():
            if name == _PUSHBACK:
                return int(value) / 1000 if str(value).isdigit() else -1.0
        return None


def outcome_of(result: Any = None, error: BaseException | None = None) -> Outcome:
    """The outcome, with the status that the result or the error bears.

    >>> from types import SimpleNamespace
    >>> outcome_of(SimpleNamespace(status=503)).ok
    False
    >>> outcome_of(error=ConnectionResetError()).broken
    True
    """
    if _is_no_http(error):
        return Outcome(result, error)
    return Outcome(result, error, _status_of(result if error is None else error))


def _status_of(value: Any) -> int | str | None:
    for holder in (value, getattr(value, "response", None)):
        for name in ("status", "status_code"):
            status = getattr(holder, name, None)
            if isinstance(status, int) and 100 <= status <= 599:
                return int(status)
    code = getattr(value, "code", None)
    named = getattr(code() if callable(code) else None, "name", None)
    return named if isinstance(named, str) and named in _GRPC_CODES else None


def _is_no_http(error: BaseException | None) -> bool:
    return error is not None and _is_one_of(error.__cause__, _NO_HTTP)


def _is_one_of(error: BaseException | None, kinds: tuple[tuple[str, str], ...]) -> bool:
    """Whether the error is of a class of a module that is loaded; one that is not has raised nothing."""
    if error is None:
        return False
    classes = (getattr(sys.modules.get(module), name, None) for module, name in kinds)
    return any(isinstance(kind, type) and isinstance(error, kind) for kind in classes)
