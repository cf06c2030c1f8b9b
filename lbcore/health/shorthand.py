"""A `HealthCheck` in one call, with Python's own values: bytes, numbers, ranges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lbcore.settings import (
    GrpcHealthCheck,
    HeaderValue,
    HealthCheck,
    HttpHealthCheck,
    Payload,
    StatusRange,
    StringMatcher,
    TcpHealthCheck,
)

__all__ = ["GrpcCheck", "HttpCheck", "TcpCheck"]

Statuses = Iterable[int | range | StatusRange]
Headers = Mapping[str, str] | Iterable[HeaderValue]
Content = bytes | Payload | Iterable[bytes | Payload]


def HttpCheck(  # noqa: N802 - makes a value and reads as one
    path: str = "/",
    *,
    host: str = "",
    method: str = "GET",
    expected_statuses: Statuses = (),
    retriable_statuses: Statuses = (),
    send: bytes | Payload | None = None,
    receive: Content = (),
    response_buffer_size: int = 1024,
    request_headers_to_add: Headers = (),
    request_headers_to_remove: Iterable[str] = (),
    service_name_matcher: StringMatcher | None = None,
    codec_client_type: str = "http1",
    **settings: Any,
) -> HealthCheck:
    """A check over HTTP; arguments as the fields of `HttpHealthCheck` and, for the rest, of `HealthCheck`.

    >>> HttpCheck("/healthz", expected_statuses=[range(200, 300)], interval=1.0).http.expected_statuses
    (StatusRange(start=200, end=300),)
    """
    http = HttpHealthCheck(
        path=path,
        host=host,
        method=method,  # type: ignore[arg-type]  # checked by the value itself
        expected_statuses=tuple(map(_range, expected_statuses)),
        retriable_statuses=tuple(map(_range, retriable_statuses)),
        send=None if send is None else _payload(send),
        receive=_payloads(receive),
        response_buffer_size=response_buffer_size,
        request_headers_to_add=_headers(request_headers_to_add),
        request_headers_to_remove=tuple(request_headers_to_remove),
        service_name_matcher=service_name_matcher,
        codec_client_type=codec_client_type,  # type: ignore[arg-type]
    )
    return HealthCheck(http=http, **settings)


def TcpCheck(  # noqa: N802
    *, send: bytes | Payload | None = None, receive: Content = (), **settings: Any
) -> HealthCheck:
    """A check that connects, and compares what comes back where `receive` is given.

    >>> TcpCheck(send=b"PING", receive=b"PONG").tcp
    TcpHealthCheck(send=Payload(text='50494e47'), receive=(Payload(text='504f4e47'),))
    """
    tcp = TcpHealthCheck(send=None if send is None else _payload(send), receive=_payloads(receive))
    return HealthCheck(tcp=tcp, **settings)


def GrpcCheck(  # noqa: N802
    service_name: str = "",
    *,
    authority: str = "",
    watch: bool = False,
    initial_metadata: Headers = (),
    **settings: Any,
) -> HealthCheck:
    """A check by grpc.health.v1.

    >>> GrpcCheck("shop.Cart", interval=2.0).grpc.service_name
    'shop.Cart'
    """
    grpc = GrpcHealthCheck(
        service_name=service_name,
        authority=authority,
        watch=watch,
        initial_metadata=_headers(initial_metadata),
    )
    return HealthCheck(grpc=grpc, **settings)


def _headers(headers: Headers) -> tuple[HeaderValue, ...]:
    if isinstance(headers, Mapping):
        return tuple(HeaderValue(key=key, value=value) for key, value in headers.items())
    return tuple(headers)


def _range(statuses: int | range | StatusRange) -> StatusRange:
    if isinstance(statuses, StatusRange):
        return statuses
    if isinstance(statuses, range):
        return StatusRange(start=statuses.start, end=statuses.stop)
    return StatusRange(start=statuses, end=statuses + 1)


def _payloads(content: Content) -> tuple[Payload, ...]:
    if isinstance(content, bytes | Payload):
        return (_payload(content),)
    return tuple(map(_payload, content))


def _payload(content: bytes | Payload) -> Payload:
    return content if isinstance(content, Payload) else Payload.of(content)
