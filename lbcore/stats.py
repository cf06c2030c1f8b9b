"""What a `Cluster` says of itself: `ClusterStats`, one `EndpointStats` an endpoint. Values only."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from lbcore.model import Endpoint

__all__ = [
    "Availability",
    "BreakerStats",
    "CircuitBreakerStats",
    "ClusterStats",
    "EjectionCause",
    "EndpointStats",
    "FleetLearned",
    "Learned",
    "OutlierDetectionStats",
    "PriorityStats",
]


class Availability(enum.Enum):
    """How picking sees an endpoint: discovery's health, active checks and ejections taken together."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"


class EjectionCause(str, enum.Enum):
    """What outlier detection has found against an endpoint, by Envoy's names."""

    CONSECUTIVE_5XX = "consecutive_5xx"
    CONSECUTIVE_GATEWAY_FAILURE = "consecutive_gateway_failure"
    CONSECUTIVE_LOCAL_ORIGIN_FAILURE = "consecutive_local_origin_failure"
    SUCCESS_RATE = "success_rate"
    FAILURE_PERCENTAGE = "failure_percentage"
    LOCAL_ORIGIN_SUCCESS_RATE = "local_origin_success_rate"
    LOCAL_ORIGIN_FAILURE_PERCENTAGE = "local_origin_failure_percentage"


@dataclass(frozen=True, slots=True)
class Learned:
    """What `Adaptive` has learned of an endpoint; its score is ratio x (queue + the fleet's workers) / weight.

    Fields:
        latency: seconds that a request takes there without a queue; None before the first answer.
        ratio: that to the fleet's, as far as it is credible, and more where it fails: 1.0 where endpoints do not differ
            beyond chance.
        samples: answers that its latency rests on, failures apart; fewer as they age.
        queue: requests that it is thought to have.
        reported: requests in flight by its last report, and what this client has sent since; None: it does not report.
        failing: share of its last answers that failed, beyond what others' did and chance explains; 0.0 to 1.0.
    """

    latency: float | None
    ratio: float
    samples: float
    queue: float
    reported: float | None
    failing: float


@dataclass(frozen=True, slots=True)
class FleetLearned:
    """What `Adaptive` has learned of all endpoints together.

    Fields:
        latency: seconds that a request takes without a queue (harmonic mean of the endpoints); None before the first.
        workers: after how many requests ahead an answer takes twice as long.
        doubt: answers after which half of an endpoint's difference is believed; None where they do not differ.
        patience: seconds in which what was learned of an endpoint falls to 1/e while it is not used.
        failing: share of all answers that fail, over the last thousand or so.
    """

    latency: float | None
    workers: float
    doubt: float | None
    patience: float
    failing: float


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """One endpoint's counts since its address joined the cluster.

    Fields:
        endpoint, availability: which, and how picking sees it.
        active: requests in flight.
        requests: begun by `acquire`; successes and failures: ended by `Lease.done`.
        mean_latency: seconds, over the requests whose latency was given; None before the first.
        failed_active_check: whether `Cluster.set_health` has said so.
        ejected: whether outlier detection keeps it out now.
        ejected_at, returns_at: nanoseconds of the cluster's clock: since when, and from when on `tick` lets it return;
            None where it is in.
        times_ejected: since its address joined.
        success_rate, local_origin_success_rate: percent in the last interval of outlier detection; None with too few
            requests to judge.
        ejection_cause: of the latest ejection, also when it is over; None before the first.
        learned: by the policy `Adaptive`; None by any other.
    """

    endpoint: Endpoint
    availability: Availability
    active: int
    requests: int
    successes: int
    failures: int
    mean_latency: float | None
    failed_active_check: bool
    ejected: bool
    ejected_at: int | None
    returns_at: int | None
    times_ejected: int
    success_rate: float | None
    local_origin_success_rate: float | None
    ejection_cause: EjectionCause | None
    learned: Learned | None = None


@dataclass(frozen=True, slots=True)
class PriorityStats:
    """One priority: its endpoints, and its part of the traffic in percent. In panic, health is ignored.

    `excluded` counts the draining endpoints: they leave on purpose, so availability is measured without them.
    """

    total: int
    healthy: int
    degraded: int
    excluded: int
    healthy_load: int
    degraded_load: int
    panic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetectionStats:
    """Ejections of a cluster since it was made, by the names of Envoy's statistics (cluster_stats.rst).

    Fields:
        ejections_active: endpoints that are out now.
        ejections_overflow: not ejected, because too many were out already.
        overflow_by_cause: the same, by what they were found by.
        ejections_enforced_*, ejections_detected_*: by cause. A detected one is not enforced where the percentage that
            enforces it, or the limit of ejections, says so.
        *_average, *_threshold: percent, in the last interval; None where too few endpoints had enough requests.
    """

    ejections_active: int
    ejections_overflow: int
    ejections_enforced_total: int
    ejections_enforced_consecutive_5xx: int
    ejections_enforced_consecutive_gateway_failure: int
    ejections_enforced_consecutive_local_origin_failure: int
    ejections_enforced_success_rate: int
    ejections_enforced_failure_percentage: int
    ejections_enforced_local_origin_success_rate: int
    ejections_enforced_local_origin_failure_percentage: int
    ejections_detected_consecutive_5xx: int
    ejections_detected_consecutive_gateway_failure: int
    ejections_detected_consecutive_local_origin_failure: int
    ejections_detected_success_rate: int
    ejections_detected_failure_percentage: int
    ejections_detected_local_origin_success_rate: int
    ejections_detected_local_origin_failure_percentage: int
    success_rate_average: float | None
    success_rate_ejection_threshold: float | None
    local_origin_success_rate_average: float | None
    local_origin_success_rate_ejection_threshold: float | None
    overflow_by_cause: Mapping[EjectionCause, int]

    def enforced(self, cause: EjectionCause) -> int:
        """Ejections by what was found."""
        found: int = getattr(self, f"ejections_enforced_{cause.value}")
        return found

    def detected(self, cause: EjectionCause) -> int:
        """The same, with those that were not ejected."""
        found: int = getattr(self, f"ejections_detected_{cause.value}")
        return found

    def unenforced(self, cause: EjectionCause) -> Mapping[str, int]:
        """Of those that were not ejected, how many for which reason; names as in gRFC A91."""
        overflow = self.overflow_by_cause[cause]
        left_in = self.detected(cause) - self.enforced(cause) - overflow
        return {"max_ejection_overflow": overflow, "enforcement_percentage": left_in}


@dataclass(frozen=True, slots=True)
class BreakerStats:
    """One circuit breaker: its limit at this moment, what is under way, and how often it has refused."""

    limit: int
    active: int
    refused: int

    @property
    def remaining(self) -> int:
        """How many more it lets through."""
        return max(0, self.limit - self.active)

    @property
    def open(self) -> bool:
        """Whether it refuses now."""
        return self.active >= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerStats:
    """The circuit breakers of a cluster. What those of single endpoints refuse counts with `requests`."""

    requests: BreakerStats
    pending_requests: BreakerStats
    retries: BreakerStats
    connections: BreakerStats


@dataclass(frozen=True, slots=True)
class ClusterStats:
    """A cluster at one moment.

    Fields:
        active: requests in flight, those to endpoints that have left since included.
        outlier_detection, circuit_breakers: None where they are off.
        learned: by the policy `Adaptive`; None by any other.
    """

    name: str
    active: int
    endpoints: tuple[EndpointStats, ...]
    priorities: tuple[PriorityStats, ...]
    outlier_detection: OutlierDetectionStats | None = None
    circuit_breakers: CircuitBreakerStats | None = None
    learned: FleetLearned | None = None
