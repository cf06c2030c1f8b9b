"""The limiters' formulas, by an injected clock."""

from __future__ import annotations

import math

import pytest

from lbcore.errors import Overloaded
from lbcore.resilience.adaptive_concurrency import AdaptiveConcurrency, GradientSettings
from lbcore.resilience.admission_control import AdmissionControl, AdmissionSettings


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TestAdaptiveConcurrency:
    @staticmethod
    def answer(limits: AdaptiveConcurrency, clock: Clock, latency: float, count: int = 1) -> None:
        for _ in range(count):
            done = limits.admit()
            clock.now += latency
            done(True)

    def measured(self, min_rtt: float, **settings: float) -> tuple[AdaptiveConcurrency, Clock]:
        """With minRTT measured, at the first limit."""
        clock = Clock()
        made = GradientSettings(**{"request_count": 5, "min_rtt_interval": 1e6, **settings})  # type: ignore[arg-type]
        limits = AdaptiveConcurrency(made, clock=clock, seed=1)
        self.answer(limits, clock, min_rtt, 5)
        return limits, clock

    def window(self, limits: AdaptiveConcurrency, clock: Clock, latency: float) -> int:
        """The limit after a window with one such latency."""
        clock.now += 1e-6
        self.answer(limits, clock, latency)
        clock.now += limits.settings.concurrency_update_interval
        limits.admit()(None)
        return limits.limit

    def test_a_measurement_takes_so_many_answers_at_the_least_concurrency(self) -> None:
        limits, _ = self.measured(0.02, sample_aggregate_percentile=50.0)
        assert limits.min_rtt == pytest.approx(0.02)
        assert limits.limit == 3

    @pytest.mark.parametrize("latency", [0.01, 0.02, 0.024, 0.03, 0.05, 10.0])
    def test_the_limit_follows_the_gradient(self, latency: float) -> None:
        limits, clock = self.measured(0.02, max_concurrency_limit=1000, min_concurrency=3)
        limits.limit = 100
        gradient = max(0.5, min(2.0, 0.02 * 1.25 / latency))
        grown = int(100 * gradient + math.sqrt(100 * gradient))
        assert self.window(limits, clock, latency) == pytest.approx(grown, abs=1)

    def test_it_stays_within_its_bounds(self) -> None:
        limits, clock = self.measured(0.02, max_concurrency_limit=20, min_concurrency=3)
        for _ in range(10):
            self.window(limits, clock, 0.001)
        assert limits.limit == 20
        for _ in range(4):
            self.window(limits, clock, 10.0)
        assert limits.limit >= 3

    def test_a_window_without_answers_changes_nothing(self) -> None:
        limits, clock = self.measured(0.02)
        before = limits.limit
        clock.now += 50
        limits.admit()(None)
        assert limits.limit == before

    def test_it_measures_anew_after_the_interval_and_then_returns_to_its_limit(self) -> None:
        limits, clock = self.measured(0.02, min_rtt_interval=10.0, jitter=0.0)
        limits.limit = 40
        clock.now += 10.0
        limits.admit()(None)
        assert limits.limit == 3
        self.answer(limits, clock, 0.01, 5)
        assert (limits.limit, limits.min_rtt) == (40, pytest.approx(0.01))

    def test_answers_to_calls_from_before_a_measurement_do_not_count_in_it(self) -> None:
        limits, clock = self.measured(0.02, min_rtt_interval=10.0, jitter=0.0)
        early = limits.admit()
        clock.now += 10.0
        limits.admit()(None)
        early(True)
        self.answer(limits, clock, 0.01, 5)
        assert limits.min_rtt == pytest.approx(0.01)

    def test_five_windows_at_the_least_limit_have_it_measured_again(self) -> None:
        limits, clock = self.measured(0.001, request_count=5)
        for _ in range(5):
            self.window(limits, clock, 10.0)
        self.answer(limits, clock, 0.05, 5)
        assert limits.min_rtt == pytest.approx(0.05)

    def test_a_call_ends_once(self) -> None:
        limits = AdaptiveConcurrency()
        done = limits.admit()
        done(True)
        done(True)
        assert limits.active == 0


class TestAdmissionControl:
    @pytest.mark.parametrize(
        ("calls", "successes", "threshold", "aggression", "probability"),
        [
            (0, 0, 95, 1, 0.0),
            (100, 100, 95, 1, 0.0),
            (100, 95, 95, 1, 0.0),
            (100, 50, 100, 1, 50 / 101),
            (100, 50, 95, 1, (100 - 50 / 0.95) / 101),
            (100, 50, 95, 2, math.sqrt((100 - 50 / 0.95) / 101)),
            (100, 0, 95, 1, 0.8),
        ],
    )
    def test_the_formula(
        self, calls: int, successes: int, threshold: float, aggression: float, probability: float
    ) -> None:
        settings = AdmissionSettings(sr_threshold=threshold, aggression=aggression)
        control = AdmissionControl(settings, clock=Clock())
        for n in range(calls):
            control.record(n < successes)
        assert control.rejection_probability == pytest.approx(probability)

    def test_what_is_older_than_the_window_is_forgotten(self) -> None:
        clock = Clock()
        control = AdmissionControl(clock=clock)
        control.record(False)
        clock.now += 29.9
        control.record(True)
        assert control.rejection_probability == pytest.approx((2 - 1 / 0.95) / 3)
        clock.now += 0.2
        assert control.rejection_probability == 0.0

    def test_a_quiet_service_is_not_refused(self) -> None:
        control = AdmissionControl(AdmissionSettings(rps_threshold=5), clock=Clock())
        for _ in range(100):
            control.record(False)
        assert control.rejection_probability == 0.0  # 100 in 30 s
        for _ in range(100):
            control.record(False)
        assert control.rejection_probability > 0.5

    def test_refusals_come_with_that_probability_and_are_not_counted(self) -> None:
        control = AdmissionControl(clock=Clock(), seed=7)
        for n in range(1000):
            control.record(n < 475)

        def refused() -> bool:
            try:
                control.admit()(None)
            except Overloaded:
                return True
            return False

        assert sum(refused() for _ in range(2000)) / 2000 == pytest.approx(0.5, abs=0.05)
