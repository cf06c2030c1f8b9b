"""Settings of a cluster that are not its policy: slow start, outlier detection, circuit breakers, health checks, drops.

Names and defaults are Envoy's. Durations are seconds, percentages 0 to 100. Each value is checked when it is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from lbcore.errors import Mistake
from lbcore.model import ByLocality, WholeByLocality
from lbcore.regex_rewrite import compiled, portable_pattern
from lbcore.schema import Checked
from lbcore.validation import (
    UINT32_MAX,
    Interval,
    Number,
    Percent,
    Seconds,
    Uint32,
    Whole,
    WholePercent,
    header_name,
    hexadecimal,
    printable,
    refusal,
    resource_name,
    url_path,
    visible_text,
)

__all__ = [
    "CheckTls",
    "CircuitBreakers",
    "DropOverload",
    "GrpcHealthCheck",
    "HeaderValue",
    "HealthCheck",
    "HttpHealthCheck",
    "LocalityWeighted",
    "OutlierDetection",
    "Payload",
    "PerHostThresholds",
    "RetryBudget",
    "SlowStart",
    "StatusRange",
    "StringMatcher",
    "TcpHealthCheck",
    "ZoneAware",
]


@dataclass(frozen=True, slots=True)
class SlowStart(Checked):
    """A new endpoint's weight grows from `min_weight_percent` to all of it while `slow_start_window` seconds pass.

    The factor is max(min_weight_percent / 100, (age / window) ** (1 / aggression)).
    Source: Envoy SlowStartConfig (common/v3/common.proto).
    """

    slow_start_window: Interval
    aggression: Annotated[float, Number(0.0, above=True)] = 1.0
    min_weight_percent: Percent = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetection(Checked):
    """When an endpoint that answers badly is ejected, and for how long. Source: Envoy outlier_detection.proto.

    `max_ejection_time` is by default the larger of 300 seconds and `base_ejection_time`, and never below the latter.
    `algorithm` says whose rules lbcore's own picks follow: Envoy's, or gRPC's (gRFC A50: by priority, rates only).
    `event_log_path` is a file to which lbcore appends each ejection and each return as a line of JSON.
    """

    consecutive_5xx: Uint32 = 5
    consecutive_gateway_failure: Uint32 = 5
    enforcing_consecutive_5xx: WholePercent = 100
    enforcing_consecutive_gateway_failure: WholePercent = 0
    interval: Interval = 10.0
    base_ejection_time: Interval = 30.0
    max_ejection_time: Interval = 300.0
    max_ejection_time_jitter: Annotated[float, Seconds(0.0)] = 0.0
    max_ejection_percent: WholePercent = 10
    always_eject_one_host: bool = False
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failure: Uint32 = 5
    enforcing_consecutive_local_origin_failure: WholePercent = 100
    enforcing_success_rate: WholePercent = 100
    success_rate_minimum_hosts: Uint32 = 5
    success_rate_request_volume: Uint32 = 100
    success_rate_stdev_factor: Uint32 = 1900
    enforcing_local_origin_success_rate: WholePercent = 100
    failure_percentage_threshold: WholePercent = 85
    enforcing_failure_percentage: WholePercent = 0
    enforcing_failure_percentage_local_origin: WholePercent = 0
    failure_percentage_minimum_hosts: Uint32 = 5
    failure_percentage_request_volume: Uint32 = 50
    successful_active_health_check_uneject_host: bool = True
    algorithm: Literal["envoy", "grpc"] = "envoy"
    event_log_path: Annotated[str, printable] = ""

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        if self.max_ejection_time == 300.0 and self.base_ejection_time > 300.0:
            object.__setattr__(self, "max_ejection_time", self.base_ejection_time)

    def contradictions(self) -> Iterator[Mistake]:
        if self.max_ejection_time < self.base_ejection_time and self.max_ejection_time != 300.0:
            yield Mistake(
                ("max_ejection_time",),
                f"max_ejection_time {self.max_ejection_time:g}: "
                f"expected at least base_ejection_time {self.base_ejection_time:g}",
                see=("base_ejection_time",),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget(Checked):
    """Retries under way at once, as a share of the requests that are in flight or wait.

    Fields:
        budget_percent: of those requests.
        min_retry_concurrency: so many are allowed whatever the share.

    Source: Envoy CircuitBreakers.Thresholds.RetryBudget.
    """

    budget_percent: Percent = 20.0
    min_retry_concurrency: Uint32 = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PerHostThresholds(Checked):
    """How much may be under way at once to one endpoint. Source: Envoy CircuitBreakers.per_host_thresholds.

    Fields:
        max_connections: a `Cluster` takes a request in flight for one: an endpoint with so many is passed over.
    """

    max_connections: Uint32


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakers(Checked):
    """How much may be under way at once. Source: Envoy circuit_breaker.proto, thresholds of the default priority.

    Fields:
        max_connections: to all endpoints; a `Cluster` counts its `connection_permit`s.
        max_pending_requests: that wait, for a connection or a place; a `Cluster` counts its `pending_permit`s.
        max_requests: in flight.
        max_retries: under way; a `Cluster` counts its `retry_permit`s. A `retry_budget` takes its place.
        track_remaining: show how much is left of each in the metrics.
        per_host_thresholds: of each endpoint.
    """

    max_connections: Uint32 = 1024
    max_pending_requests: Uint32 = 1024
    max_requests: Uint32 = 1024
    max_retries: Uint32 = 3
    retry_budget: RetryBudget | None = None
    track_remaining: bool = False
    per_host_thresholds: PerHostThresholds | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRange(Checked):
    """HTTP statuses from `start` up to, but without, `end`. Source: Envoy Int64Range, as HttpHealthCheck takes it."""

    start: Annotated[int, Whole(100, 599)]
    end: Annotated[int, Whole(101, 600)]

    def contradictions(self) -> Iterator[Mistake]:
        if self.start >= self.end:
            yield Mistake(("end",), f"end {self.end}: expected more than start {self.start}", see=("start",))

    def __contains__(self, status: int) -> bool:
        return self.start <= status < self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload(Checked):
    """Bytes that a check sends or must find, in hexadecimal. Source: Envoy HealthCheck.Payload.

    >>> Payload.of(b"PING")
    Payload(text='50494e47')
    """

    text: Annotated[str, hexadecimal]

    @classmethod
    def of(cls, content: bytes) -> Payload:
        """The payload that stands for these bytes."""
        return cls(text=content.hex())

    @property
    def content(self) -> bytes:
        """The bytes that it stands for."""
        return bytes.fromhex(self.text)


def _check_header(value: object, field: str) -> str:
    """The name of a header that a check may bear: not of those that say what the message is, and to whom."""
    name = header_name(value, field)
    if name.startswith(":") or name in ("host", "connection", "content-length", "transfer-encoding"):
        raise refusal(field, name, "expected a header that neither frames the request nor names its host")
    return name


def _check_headers(value: Any, field: str) -> tuple[str, ...]:
    """Several of them."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise refusal(field, value, "expected a list of header names")
    return tuple(_check_header(name, field) for name in value)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderValue(Checked):
    """A header that a check bears. Source: Envoy HeaderValueOption (core/v3/base.proto).

    Fields:
        key, value: of the header; the value is taken as it stands, `%` too.
        append_action: beside one of that name that is there already, instead of it, only without it, only with it.
    """

    key: Annotated[str, _check_header]
    value: Annotated[str, printable] = ""
    append_action: Literal[
        "append_if_exists_or_add", "overwrite_if_exists_or_add", "add_if_absent", "overwrite_if_exists"
    ] = "append_if_exists_or_add"


@dataclass(frozen=True, slots=True, kw_only=True)
class StringMatcher(Checked):
    """What a text must be; exactly one of its fields, and `ignore_case`. Source: Envoy type/matcher/v3/string.proto.

    Fields:
        exact, prefix, suffix, contains: to be compared, without regard for ASCII case where `ignore_case` is set.
        safe_regex: a regular expression that all of it must match, in the syntax that RE2 and Python share.

    >>> StringMatcher(prefix="cart-").matches("cart-blue")
    True
    """

    exact: Annotated[str, printable] | None = None
    prefix: Annotated[str, visible_text] | None = None
    suffix: Annotated[str, visible_text] | None = None
    contains: Annotated[str, visible_text] | None = None
    safe_regex: Annotated[str, portable_pattern] | None = None
    ignore_case: bool = False

    def contradictions(self) -> Iterator[Mistake]:
        names = ("exact", "prefix", "suffix", "contains", "safe_regex")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            yield Mistake((), f"expected exactly one of {', '.join(names)}, found {' and '.join(given) or 'none'}")
        if self.ignore_case and self.safe_regex is not None:
            yield Mistake(("ignore_case",), "ignore_case: expected none beside safe_regex, which has (?i)")

    def matches(self, value: str) -> bool:
        """Whether the text is what is expected."""
        if self.safe_regex is not None:
            return compiled(self.safe_regex).fullmatch(value.encode()) is not None
        exact, prefix, suffix, contains = map(self._cased, (self.exact, self.prefix, self.suffix, self.contains))
        value = self._cased(value) or ""
        if exact is not None:
            return value == exact
        if contains is not None:
            return contains in value
        return value.startswith(prefix or "") and value.endswith(suffix or "")

    def _cased(self, text: str | None) -> str | None:
        return text.lower() if text is not None and self.ignore_case else text


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpHealthCheck(Checked):
    """A request that must be answered with an expected status. Source: Envoy HealthCheck.HttpHealthCheck.

    Fields:
        path, method: of the request; `send` is its body, for methods that have one.
        host: the Host header; the service's name where it is empty.
        expected_statuses: that pass; 200 alone where there are none.
        retriable_statuses: that count to `unhealthy_threshold`; any other status fails the endpoint at once.
        receive: what the first `response_buffer_size` bytes of the body must hold, in this order (0: all of it).
        request_headers_to_remove, request_headers_to_add: of the request, in this order.
        service_name_matcher: what the header `x-envoy-upstream-healthchecked-cluster` of a good answer must say.
        codec_client_type: HTTP/1.1, or HTTP/2 (over TLS by ALPN, else at once).
    """

    path: Annotated[str, url_path] = "/"
    host: Annotated[str, printable] = ""
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"] = "GET"
    expected_statuses: tuple[StatusRange, ...] = ()
    retriable_statuses: tuple[StatusRange, ...] = ()
    send: Payload | None = None
    receive: tuple[Payload, ...] = ()
    response_buffer_size: Uint32 = 1024
    request_headers_to_add: tuple[HeaderValue, ...] = ()
    request_headers_to_remove: Annotated[tuple[str, ...], _check_headers] = ()
    service_name_matcher: StringMatcher | None = None
    codec_client_type: Literal["http1", "http2"] = "http1"

    def contradictions(self) -> Iterator[Mistake]:
        if self.send is not None and self.method not in ("POST", "PUT", "PATCH", "OPTIONS"):
            yield Mistake(("send",), f"send: method {self.method} has no body, expected POST, PUT, PATCH or OPTIONS")
        length = sum(len(each.content) for each in self.receive)
        if 0 < self.response_buffer_size < length:
            what = f"response_buffer_size {self.response_buffer_size}: expected at least the {length} bytes of receive"
            yield Mistake(("response_buffer_size",), what, see=("receive",))


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpHealthCheck(Checked):
    """A connection that must open and, with `receive`, answer with these bytes, in this order.

    Source: Envoy HealthCheck.TcpHealthCheck.
    """

    send: Payload | None = None
    receive: tuple[Payload, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcHealthCheck(Checked):
    """grpc.health.v1.Health must say SERVING of `service_name`. Source: Envoy HealthCheck.GrpcHealthCheck.

    `authority` is the service's name where it is empty, `initial_metadata` goes with each call. `watch` also keeps a
    Watch stream open, so that a change is checked at once and not at the next interval; Envoy knows no such thing.
    """

    service_name: Annotated[str, printable] = ""
    authority: Annotated[str, printable] = ""
    watch: bool = False
    initial_metadata: tuple[HeaderValue, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTls(Checked):
    """Checks over TLS, made by lbcore alone: an Envoy checks over the transport that its cluster has.

    Fields:
        ca_file: PEM certificates to trust; those of the system where it is empty.
        server_name: that the certificate must bear, and SNI; the endpoint's hostname, or else its IP.
        verify: False trusts any certificate, as one does on a network of one's own.
    """

    ca_file: Annotated[str, printable] = ""
    server_name: Annotated[str, printable] = ""
    verify: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck(Checked):
    """How endpoints are probed; exactly one of `http`, `tcp` and `grpc`. Source: Envoy core/v3/health_check.proto.

    Fields:
        interval, timeout: between the end of a check and the next one; after which a check has failed.
        healthy_threshold, unhealthy_threshold: checks in a row after which the state changes. The first check of an
            endpoint decides at once, and so does an answer that is neither expected nor retriable.
        initial_jitter: the first check comes after a random part of it.
        interval_jitter, interval_jitter_percent: a random part of each is added to an interval.
        unhealthy_interval: after a failed check; `interval` where it is None.
        unhealthy_edge_interval: after a failed check that does not yet change the state; `unhealthy_interval`.
        healthy_edge_interval: after a passed check that does not yet change the state; `interval`.
        no_traffic_interval: instead of all others while the service has never had traffic.
        no_traffic_healthy_interval: the same after a passed check; `no_traffic_interval`.
        reuse_connection: keep the connection from check to check.
        checked_by: `service`, which is lbcore, `clients`, which is Envoy, or `both`.
        alt_port: to check at another port than the one that serves; None: at that.
        event_log_path: a file to which lbcore appends each change of state as a line of JSON.
        always_log_health_check_failures, always_log_health_check_success: and each result.
    """

    http: HttpHealthCheck | None = None
    tcp: TcpHealthCheck | None = None
    grpc: GrpcHealthCheck | None = None
    interval: Interval = 5.0
    timeout: Interval = 1.0
    healthy_threshold: Annotated[int, Whole(1, UINT32_MAX)] = 2
    unhealthy_threshold: Annotated[int, Whole(1, UINT32_MAX)] = 3
    initial_jitter: Annotated[float, Seconds(0.0)] = 0.0
    interval_jitter: Annotated[float, Seconds(0.0)] = 0.0
    interval_jitter_percent: Uint32 = 0
    unhealthy_interval: Interval | None = None
    unhealthy_edge_interval: Interval | None = None
    healthy_edge_interval: Interval | None = None
    no_traffic_interval: Interval = 60.0
    no_traffic_healthy_interval: Interval | None = None
    reuse_connection: bool = True
    tls: CheckTls | None = None
    alt_port: Annotated[int, Whole(1, 65535)] | None = None
    checked_by: Literal["service", "clients", "both"] = "both"
    event_log_path: Annotated[str, printable] = ""
    always_log_health_check_failures: bool = False
    always_log_health_check_success: bool = False

    def contradictions(self) -> Iterator[Mistake]:
        kinds = [name for name in ("http", "tcp", "grpc") if getattr(self, name) is not None]
        if len(kinds) != 1:
            yield Mistake((), f"expected exactly one of http, tcp and grpc, found {' and '.join(kinds) or 'none'}")
        if self.tls is not None and self.checked_by != "service":
            what = f"tls: expected checked_by service, not {self.checked_by}: clients check over their own transport"
            yield Mistake(("tls",), what, see=("checked_by",) if self.checked_by != "both" else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class DropOverload(Checked):
    """Share of requests to refuse, in percent. Source: Envoy ClusterLoadAssignment.Policy.DropOverload; one category,
    because Envoy refuses more."""

    category: Annotated[str, visible_text]
    percent: Percent


@dataclass(frozen=True, slots=True)
class LocalityWeighted(Checked):
    """Localities share the traffic by the weights given to `Cluster.update`, scaled by how many endpoints are healthy.

    A locality without a weight, or of weight 0, takes no traffic.
    Source: Envoy LocalityWeightedLbConfig, locality_wrr.cc.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneAware(Checked):
    """Traffic stays in the caller's own locality as far as its endpoints can carry its callers; the rest spills over.

    The caller's own locality is `Cluster(local_locality=...)`. Without callers in it zones do not matter.

    Fields:
        local_hosts: how many callers run in each locality (by weight: the sum of their weights); `Cluster.update` may
            replace it.
        local_service: instead, the service whose healthy endpoints are the callers; whoever serves from a Directory
            counts them there.
        routing_enabled: percent of the requests that are routed by zone.
        min_cluster_size: healthy endpoints below which zones are ignored.
        force_local_zone_min_size: stay local whenever so many healthy endpoints are there; None: never forced.
        locality_basis: what an endpoint counts in its zone: 1 (`healthy_hosts_num`), or its weight
            (`healthy_hosts_weight`).
        fail_traffic_on_panic: fail rather than use unhealthy endpoints in panic.

    Source: Envoy ZoneAwareLbConfig, load_balancer_impl.cc; lbcore applies it at every priority, Envoy at 0 only.
    """

    local_hosts: Annotated[ByLocality, WholeByLocality("callers", 0)] = field(default_factory=dict)
    local_service: Annotated[str, resource_name] | None = None
    routing_enabled: Percent = 100.0
    min_cluster_size: Uint32 = 6
    force_local_zone_min_size: Uint32 | None = None
    locality_basis: Literal["healthy_hosts_num", "healthy_hosts_weight"] = "healthy_hosts_num"
    fail_traffic_on_panic: bool = False

    def contradictions(self) -> Iterator[Mistake]:
        if self.local_hosts and self.local_service is not None:
            yield Mistake(
                ("local_service",),
                f"local_service {self.local_service!r}: expected local_hosts or local_service, not both",
                see=("local_hosts",),
            )
