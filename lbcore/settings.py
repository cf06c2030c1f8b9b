"""Settings of a cluster that are not its policy: slow start, outlier detection, circuit breakers, health checks, drops.

Names and defaults are Envoy's. Durations are seconds, percentages 0 to 100. Each value is checked when it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from lbcore.errors import Mistake
from lbcore.model import ByLocality, WholeByLocality
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
    printable,
    url_path,
    visible_text,
)

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
class CircuitBreakers(Checked):
    """How much may be under way at once. Source: Envoy circuit_breaker.proto, thresholds of the default priority."""

    max_connections: Uint32 = 1024
    max_pending_requests: Uint32 = 1024
    max_requests: Uint32 = 1024
    max_retries: Uint32 = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpHealthCheck(Checked):
    """A GET that must answer 200. Source: Envoy HealthCheck.HttpHealthCheck."""

    path: Annotated[str, url_path] = "/"
    host: Annotated[str, printable] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck(Checked):
    """How endpoints are probed. Source: Envoy core/v3/health_check.proto."""

    http: HttpHealthCheck
    interval: Interval = 5.0
    timeout: Interval = 1.0
    healthy_threshold: Annotated[int, Whole(1, UINT32_MAX)] = 2
    unhealthy_threshold: Annotated[int, Whole(1, UINT32_MAX)] = 3


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

    Fields:
        local_hosts: how many callers run in each locality; the caller's own is `Cluster(local_locality=...)`.
        routing_enabled: percent of the requests that are routed by zone.
        min_cluster_size: healthy endpoints below which zones are ignored.
        force_local_zone_min_size: stay local whenever so many healthy endpoints are there; None: never forced.
        fail_traffic_on_panic: fail rather than use unhealthy endpoints in panic.

    Source: Envoy ZoneAwareLbConfig, load_balancer_impl.cc; lbcore applies it at every priority, Envoy at 0 only.
    """

    local_hosts: Annotated[ByLocality, WholeByLocality("callers", 0)]
    routing_enabled: Percent = 100.0
    min_cluster_size: Uint32 = 6
    force_local_zone_min_size: Uint32 | None = None
    fail_traffic_on_panic: bool = False
