"""Settings of a cluster that are not its policy: slow start, outlier detection, circuit breakers, health checks, drops.

Names and defaults are Envoy's. Durations are seconds, percentages 0 to 100. Each value is checked when it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lbcore.errors import InvalidSetting
from lbcore.model import Locality
from lbcore.validation import number, whole

__all__ = [
    "CircuitBreakers",
    "DropOverload",
    "HealthCheck",
    "HttpHealthCheck",
    "LocalityWeighted",
    "OutlierDetection",
    "SlowStart",
    "ZoneAware",
]


@dataclass(frozen=True, slots=True)
class SlowStart:
    """A new endpoint's weight grows from `min_weight_percent` to all of it while `slow_start_window` seconds pass.

    The factor is max(min_weight_percent / 100, (age / window) ** (1 / aggression)).
    Source: Envoy SlowStartConfig (common/v3/common.proto).
    """

    slow_start_window: float
    aggression: float = 1.0
    min_weight_percent: float = 10.0

    def __post_init__(self) -> None:
        number(self.slow_start_window, "slow_start_window", 0.0, above=True)
        number(self.aggression, "aggression", 0.0, above=True)
        number(self.min_weight_percent, "min_weight_percent", 0.0, 100.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetection:
    """When an endpoint that answers badly is ejected, and for how long. Source: Envoy outlier_detection.proto."""

    consecutive_5xx: int = 5
    consecutive_gateway_failure: int = 5
    enforcing_consecutive_5xx: int = 100
    enforcing_consecutive_gateway_failure: int = 0
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejection_time_jitter: float = 0.0
    max_ejection_percent: int = 10
    always_eject_one_host: bool = False
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failure: int = 5
    enforcing_consecutive_local_origin_failure: int = 100
    enforcing_success_rate: int = 100
    success_rate_minimum_hosts: int = 5
    success_rate_request_volume: int = 100
    success_rate_stdev_factor: int = 1900
    enforcing_local_origin_success_rate: int = 100
    failure_percentage_threshold: int = 85
    enforcing_failure_percentage: int = 0
    enforcing_failure_percentage_local_origin: int = 0
    failure_percentage_minimum_hosts: int = 5
    failure_percentage_request_volume: int = 50

    def __post_init__(self) -> None:
        for field in self.__slots__:
            value = getattr(self, field)
            if field.startswith(("enforcing_", "max_ejection_percent", "failure_percentage_threshold")):
                whole(value, field, 0, 100)
            elif isinstance(value, float) or field in ("interval", "base_ejection_time", "max_ejection_time"):
                number(value, field, 0.0, above=field in ("interval", "base_ejection_time"))
            elif not isinstance(value, bool):
                whole(value, field, 0, 2**32 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakers:
    """How much may be under way at once. Source: Envoy circuit_breaker.proto, thresholds of the default priority."""

    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3

    def __post_init__(self) -> None:
        for field in self.__slots__:
            whole(getattr(self, field), field, 0, 2**32 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpHealthCheck:
    """A GET that must answer 200. Source: Envoy HealthCheck.HttpHealthCheck."""

    path: str = "/"
    host: str = ""

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise InvalidSetting(f"path {self.path!r}: expected it to start with /")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How endpoints are probed. Source: Envoy core/v3/health_check.proto."""

    http: HttpHealthCheck
    interval: float = 5.0
    timeout: float = 1.0
    healthy_threshold: int = 2
    unhealthy_threshold: int = 3

    def __post_init__(self) -> None:
        number(self.interval, "interval", 0.0, above=True)
        number(self.timeout, "timeout", 0.0, above=True)
        whole(self.healthy_threshold, "healthy_threshold", 1, 2**32 - 1)
        whole(self.unhealthy_threshold, "unhealthy_threshold", 1, 2**32 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DropOverload:
    """Share of requests to refuse, in percent. Source: Envoy ClusterLoadAssignment.Policy.DropOverload; one category,
    because Envoy refuses more."""

    category: str
    percent: float

    def __post_init__(self) -> None:
        if not self.category:
            raise InvalidSetting("category '': expected a name")
        number(self.percent, "percent", 0.0, 100.0)


@dataclass(frozen=True, slots=True)
class LocalityWeighted:
    """Localities share the traffic by the weights given to `Cluster.update`, scaled by how many endpoints are healthy.

    A locality without a weight, or of weight 0, takes no traffic.
    Source: Envoy LocalityWeightedLbConfig, locality_wrr.cc.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneAware:
    """Traffic stays in the caller's own locality as far as its endpoints can carry its callers; the rest spills over.

    Fields:
        local_hosts: how many callers run in each locality; the caller's own is `Cluster(local_locality=...)`.
        routing_enabled: percent of the requests that are routed by zone.
        min_cluster_size: healthy endpoints below which zones are ignored.
        force_local_zone_min_size: stay local whenever so many healthy endpoints are there; None: never forced.
        fail_traffic_on_panic: fail rather than use unhealthy endpoints in panic.

    Source: Envoy ZoneAwareLbConfig, load_balancer_impl.cc; lbcore applies it at every priority, Envoy at 0 only.
    """

    local_hosts: Mapping[Locality | str, int]
    routing_enabled: float = 100.0
    min_cluster_size: int = 6
    force_local_zone_min_size: int | None = None
    fail_traffic_on_panic: bool = False

    def __post_init__(self) -> None:
        for place, callers in self.local_hosts.items():
            whole(callers, f"local_hosts[{place}]", 0, 2**32 - 1)
        number(self.routing_enabled, "routing_enabled", 0.0, 100.0)
        whole(self.min_cluster_size, "min_cluster_size", 0, 2**32 - 1)
        if self.force_local_zone_min_size is not None:
            whole(self.force_local_zone_min_size, "force_local_zone_min_size", 0, 2**32 - 1)
