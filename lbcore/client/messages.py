"""What both clients say and hear: arguments to `lbcore.v1` messages, answers to values, statuses to errors. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from lbcore.errors import (
    InvalidSetting,
    LbError,
    NoEndpointAvailable,
    NotReady,
    Overloaded,
    RemoteFailure,
    RequestTimedOut,
    ServiceUnreachable,
    StoreFailed,
    UnknownLease,
    UnknownService,
)
from lbcore.model import Endpoint, LoadReport, Locality, locality
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.wire import (
    NO_ENDPOINT,
    NOT_READY,
    REASON,
    STORE_FAILED,
    UNKNOWN_LEASE,
    duration,
    endpoint_value,
    load_message,
    struct_message,
)
from lbcore.validation import number, text, whole

__all__ = [
    "CHANNEL_OPTIONS",
    "DEFAULT_TARGET",
    "WHOLE_SERVICE",
    "EndpointStatus",
    "EndpointsUpdate",
    "Exclude",
    "Key",
    "ServiceStatus",
    "View",
    "error_of",
    "explain_request",
    "pick_request",
    "report_request",
    "services_of",
    "update_of",
]

DEFAULT_TARGET = "127.0.0.1:18000"
DEFAULT_TIMEOUT = 5.0  # seconds

_REASONS: Mapping[str, type[LbError]] = {
    NO_ENDPOINT: NoEndpointAvailable,
    NOT_READY: NotReady,
    STORE_FAILED: StoreFailed,
    UNKNOWN_LEASE: UnknownLease,
}

Key: TypeAlias = "str | bytes | int | None"
Exclude: TypeAlias = "Endpoint | str | Iterable[Endpoint | str]"

CHANNEL_OPTIONS = (
    # The table of 100 000 endpoints is about 5 MB; the default limit is 4 MiB.
    ("grpc.max_receive_message_length", 256 * 2**20),
    # A service that restarts is found again within seconds; the default backoff grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),  # what a connection may take, over a distance and with TLS
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A watch may be silent for hours: a service that hangs or is cut off is noticed by asking whether it lives, as
    # often as it allows (`lbcore.service.server_options`), and only while something is called. The limit of the answer
    # has two names; the default of the second is a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The picker is a near neighbour; a proxy meant for the web (http_proxy in the environment) does not lead to it.
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """An endpoint, how many requests are under a lease on it now, and why its health is what it is."""

    endpoint: Endpoint
    active: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service as the picker service has it. Equal content has an equal `version`."""

    name: str
    version: str
    policy: str
    endpoints: tuple[EndpointStatus, ...]


@dataclass(frozen=True, slots=True)
class EndpointsUpdate:
    """One message of a watch.

    Fields:
        services: those that are new or changed; in the first update of a watch, all.
        removed: names of those that are gone.
        stale: why, by source, for each source whose services may be out of date now.
    """

    services: tuple[ServiceStatus, ...]
    removed: tuple[str, ...]
    stale: Mapping[str, str]


def pick_request(
    service: str, key: Key, exclude: Exclude, view: View, *, count: int = 1, ttl: float | None = None
) -> pb.PickRequest:
    """A `PickRequest`; with a `ttl` in seconds it takes a lease. Raises `InvalidSetting`."""
    request = pb.PickRequest(
        service=text(service, "service"), count=whole(count, "count", 1, 2**32 - 1), exclude=_addresses(exclude)
    )
    _set_key(request, key)
    view.set_in(request)
    if ttl is not None:
        request.lease.ttl.CopyFrom(duration(number(ttl, "ttl", 0.0, 1e9, above=True)))
    return request


def explain_request(service: str, key: Key, view: View) -> pb.ExplainRequest:
    """Raises `InvalidSetting`."""
    request = pb.ExplainRequest(service=text(service, "service"))
    _set_key(request, key)
    view.set_in(request)
    return request


def _set_key(request: pb.PickRequest | pb.ExplainRequest, key: Key) -> None:
    if isinstance(key, str):
        request.key = text(key, "key")
    elif isinstance(key, bytes):
        request.key_bytes = key
    elif key is not None:
        request.hash = whole(key, "key", 0, 2**64 - 1)


def _addresses(exclude: Exclude) -> list[str]:
    several = (exclude,) if isinstance(exclude, str | Endpoint) else exclude
    return [each.address if isinstance(each, Endpoint) else text(each, "exclude") for each in several]


@dataclass(frozen=True, slots=True)
class View:
    """What a request is picked from: a subset, and as seen from which locality; else all that the service says."""

    subset: Mapping[str, Any] | None = None
    local_locality: Locality | str | None = None

    def set_in(self, request: pb.PickRequest | pb.ExplainRequest | pb.PickStreamRequest) -> None:
        """Raises `InvalidSetting`."""
        if self.subset is not None:
            request.subset.CopyFrom(struct_message(self.subset, "subset"))
        if self.local_locality is not None:
            request.local_locality = str(locality(self.local_locality, "local_locality"))


WHOLE_SERVICE = View()


def report_request(
    lease_id: int, ok: bool, *, status: int | str | None, latency: float, load: LoadReport | None
) -> pb.ReportRequest:
    """The report of one outcome. Raises `InvalidSetting`."""
    outcome = pb.Outcome(lease_id=lease_id, ok=ok, latency=duration(number(latency, "latency", 0.0, 1e9)))
    if isinstance(status, str):
        outcome.grpc_status = _grpc_code(status)
    elif status is not None:
        outcome.http_status = whole(status, "status", 100, 599)
    if load is not None:
        outcome.load.CopyFrom(load_message(load))
    return pb.ReportRequest(outcomes=[outcome])


def services_of(messages: Iterable[pb.ServiceStatus]) -> tuple[ServiceStatus, ...]:
    """The services of an answer. Raises `InvalidSetting` where one holds what no endpoint can be."""
    return tuple(
        ServiceStatus(
            name=each.name,
            version=each.version,
            policy=each.policy,
            endpoints=tuple(
                EndpointStatus(endpoint_value(one.endpoint), one.active, one.reason) for one in each.endpoints
            ),
        )
        for each in messages
    )


def update_of(message: pb.WatchEndpointsResponse) -> EndpointsUpdate:
    """An answer of a watch as a value."""
    return EndpointsUpdate(services_of(message.services), tuple(message.removed), dict(message.stale))


def error_of(error: grpc.RpcError, target: str, service: str = "picker") -> LbError:
    """The documented error that a failed call stands for."""
    code, details = error.code(), error.details() or ""
    trailing: Any = error.trailing_metadata() or ()
    if kind := _REASONS.get(dict(trailing).get(REASON, "")):
        return kind(details)
    if code is grpc.StatusCode.UNAVAILABLE:
        return ServiceUnreachable(f"no {service} service answers at {target}: {details}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RequestTimedOut(f"the {service} service at {target} did not answer in time")
    kinds: dict[grpc.StatusCode, type[LbError]] = {
        grpc.StatusCode.INVALID_ARGUMENT: InvalidSetting,
        grpc.StatusCode.NOT_FOUND: UnknownService,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    }
    if code in kinds:
        return kinds[code](details)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return RemoteFailure(f"{target} speaks gRPC but is no {service} service: {details}")
    return RemoteFailure(f"the {service} service at {target} failed: {code.name}: {details}")


def _grpc_code(name: str) -> int:
    for code in grpc.StatusCode:
        if code.name == name:
            number: int = code.value[0]
            return number
    raise InvalidSetting(f"status {name!r}: expected the name of a gRPC code, or an HTTP status as a number")
