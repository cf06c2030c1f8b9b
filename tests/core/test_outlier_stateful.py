"""Outlier detection under any sequence of requests, updates, checks and ticks agrees with its rules in plain Python:
Envoy's, and gRPC's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbcore import (
    Cluster,
    EjectionCause,
    Endpoint,
    Health,
    Lease,
    LeastRequest,
    OutlierDetection,
    RingHash,
    RoundRobin,
    VirtualClock,
)
from tests.core.fleets import address
from tests.reference.outlier import Detector
from tests.reference.outlier_grpc import GrpcDetector

enforcing = st.sampled_from([0, 100, 100, 100, 100])
detections = st.builds(
    OutlierDetection,
    consecutive_5xx=st.sampled_from([0, 0, 1, 2, 3, 5]),
    consecutive_gateway_failure=st.sampled_from([0, 0, 1, 2, 3]),
    consecutive_local_origin_failure=st.sampled_from([0, 0, 1, 2, 3]),
    enforcing_consecutive_5xx=enforcing,
    enforcing_consecutive_gateway_failure=enforcing,
    enforcing_consecutive_local_origin_failure=enforcing,
    enforcing_success_rate=enforcing,
    enforcing_failure_percentage=enforcing,
    enforcing_local_origin_success_rate=enforcing,
    enforcing_failure_percentage_local_origin=enforcing,
    interval=st.sampled_from([1.0, 1.0, 10.0]),
    base_ejection_time=st.sampled_from([0.5, 3.0, 10.0]),
    max_ejection_time=st.sampled_from([10.0, 25.0]),
    max_ejection_percent=st.sampled_from([10, 34, 50, 67, 100, 100, 100]),
    always_eject_one_host=st.booleans(),
    split_external_local_origin_errors=st.booleans(),
    success_rate_minimum_hosts=st.integers(0, 3),
    success_rate_request_volume=st.integers(0, 3),
    success_rate_stdev_factor=st.sampled_from([0, 500, 500]),
    failure_percentage_threshold=st.sampled_from([0, 50, 85, 100]),
    failure_percentage_minimum_hosts=st.integers(0, 3),
    failure_percentage_request_volume=st.integers(0, 3),
    successful_active_health_check_uneject_host=st.booleans(),
)
members = st.builds(
    Endpoint,
    st.integers(0, 7).map(address),
    priority=st.sampled_from([0, 0, 0, 1]),
    health=st.sampled_from([Health.UNKNOWN, Health.HEALTHY, Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY]),
)
outcomes = st.sampled_from(
    [
        (True, None),
        (True, None),
        (False, None),
        (False, None),
        (True, 200),
        (True, 500),
        (True, 503),
        (False, 404),
        (True, 404),
    ]
)


class OutlierMachine(RuleBasedStateMachine):
    algorithm: Literal["envoy", "grpc"] = "envoy"
    reference: type[Detector] = Detector
    cluster: Cluster

    @initialize(
        detection=detections,
        endpoints=st.lists(members, min_size=3, max_size=8, unique_by=lambda endpoint: endpoint.address),
        policy=st.sampled_from([RoundRobin(), LeastRequest(), RingHash(minimum_ring_size=32)]),
        threshold=st.sampled_from([0.0, 50.0]),
        in_python=st.booleans(),
    )
    def begin(
        self,
        detection: OutlierDetection,
        endpoints: list[Endpoint],
        policy: RoundRobin | LeastRequest | RingHash,
        threshold: float,
        in_python: bool,
    ) -> None:
        detection = replace(detection, algorithm=self.algorithm)
        self.clock = VirtualClock()
        clock: Callable[[], int] = (lambda: self.clock.now) if in_python else self.clock
        self.cluster = Cluster(
            "model",
            endpoints,
            policy=policy,
            panic_threshold=threshold,
            outlier_detection=detection,
            seed=1,
            clock=clock,
        )
        self.handle = self.cluster.handle()
        self.detector = self.reference(detection, self.clock.now)
        self.detector.update(endpoints)
        self.leases: list[Lease] = []

    @rule(times=st.integers(1, 8))
    def acquire(self, times: int) -> None:
        for number in range(times):
            self._acquire(lambda key=number: (self.handle if key % 2 else self.cluster).acquire(key))

    @rule(times=st.integers(10, 60), bad=st.sets(st.integers(0, 7), max_size=3), outcome=outcomes)
    def serve(self, times: int, bad: set[int], outcome: tuple[bool, int | None]) -> None:
        """Traffic in which some endpoints answer in one way, and all others well."""
        names = {address(number) for number in bad}
        for key in range(times):
            if self._acquire(lambda key=key: self.cluster.acquire(key * (2**64 // 61))):
                lease = self.leases.pop()
                self._end(lease, outcome if lease.endpoint.address in names else (True, None))

    @rule(bad=st.sets(st.integers(0, 7), min_size=1, max_size=2), outcome=st.sampled_from([(False, None), (True, 500)]))
    def serve_for_an_interval(self, bad: set[int], outcome: tuple[bool, int | None]) -> None:
        self.serve(40, bad, outcome)
        self.tick(self.detector.settings.interval)

    def _acquire(self, acquire: Callable[[], Lease]) -> bool:
        try:
            self.leases.append(acquire())
        except LookupError:
            return False
        assert not self.detector.hosts[self.leases[-1].endpoint.address].ejected or self._panic()
        return True

    def _panic(self) -> bool:
        return any(level.panic for level in self.cluster.stats().priorities)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcome=outcomes)
    def end(self, data: st.DataObject, outcome: tuple[bool, int | None]) -> None:
        self._end(self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1))), outcome)

    def _end(self, lease: Lease, outcome: tuple[bool, int | None]) -> None:
        ok, status = outcome
        lease.done(ok, status=status)
        self.detector.ended(lease.endpoint.address, ok, status, self.clock.now)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 9.999, 10.0, 10.0, 60.0]))
    def tick(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.cluster.tick()
        self.detector.tick(self.clock.now)

    @rule(endpoints=st.lists(members, min_size=2, max_size=8, unique_by=lambda endpoint: endpoint.address))
    def replace(self, endpoints: list[Endpoint]) -> None:
        self.cluster.update(endpoints)
        self.detector.update(endpoints)

    @precondition(lambda self: self.detector.hosts)
    @rule(data=st.data(), passed=st.booleans())
    def check(self, data: st.DataObject, passed: bool) -> None:
        chosen = data.draw(st.sampled_from(sorted(self.detector.hosts)))
        self.cluster.set_health(chosen, passed)
        self.detector.checked(chosen, passed, self.clock.now)

    @invariant()
    def endpoints_are_as_the_rules_say(self) -> None:
        if not hasattr(self, "detector"):
            return
        for each in self.cluster.stats().endpoints:
            host = self.detector.hosts[each.endpoint.address]
            assert (each.ejected, each.ejection_cause, each.times_ejected) == (
                host.ejected,
                host.cause,
                host.times_ejected,
            )
            assert (each.ejected_at, each.returns_at) == (
                (host.ejected_at, self.detector.returns_at(host)) if host.ejected else (None, None)
            )
            assert (each.success_rate, each.local_origin_success_rate) == (host.success_rate, host.local_success_rate)

    @invariant()
    def counts_are_as_the_rules_say(self) -> None:
        if not hasattr(self, "detector"):
            return
        counts = self.cluster.stats().outlier_detection
        assert counts is not None
        assert counts.ejections_active == self.detector.active
        assert counts.ejections_overflow == self.detector.overflow
        assert counts.ejections_enforced_total == self.detector.enforced.total()
        for cause in (*self.detector.detected, *self.detector.enforced):
            assert getattr(counts, f"ejections_detected_{cause}") == self.detector.detected[cause]
            assert getattr(counts, f"ejections_enforced_{cause}") == self.detector.enforced[cause]
        assert counts.success_rate_average == self.detector.average.get("external")
        assert counts.success_rate_ejection_threshold == self.detector.threshold.get("external")

    def teardown(self) -> None:
        if hasattr(self, "detector"):
            ENFORCED[self.algorithm].update(self.detector.enforced)


class GrpcOutlierMachine(OutlierMachine):
    algorithm = "grpc"
    reference = GrpcDetector


ENFORCED: dict[str, Counter[str]] = {"envoy": Counter(), "grpc": Counter()}
OutlierMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
GrpcOutlierMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestOutliers = OutlierMachine.TestCase
TestGrpcOutliers = GrpcOutlierMachine.TestCase


def test_the_machines_reach_ejections_of_every_cause() -> None:
    """Guards the machines above, which have run before."""
    assert len(ENFORCED["envoy"]) >= len(EjectionCause) - 1, ENFORCED  # all of them, but for an unlucky one
    assert ENFORCED["grpc"].keys() & {"success_rate", "failure_percentage"}, ENFORCED
