"""A limit on calls in flight that follows latency: `AdaptiveConcurrency`.

The idea: latency without load (minRTT) is measured from time to time with few calls in flight; while the latency of now
is near it, there is room for more, and as it grows the limit falls. Source: Envoy gradient_controller.cc.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from lbcore.errors import Overloaded
from lbcore.schema import Checked
from lbcore.validation import Interval, Number, Percent, Whole

__all__ = ["AdaptiveConcurrency", "GradientSettings"]

_MIN_WINDOWS_BEFORE_MEASURING = 5  # in a row at the least limit: then minRTT may be wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientSettings(Checked):
    """Envoy's GradientControllerConfig, flattened.

    Fields:
        sample_aggregate_percentile: of the latencies of a window, that stands for it.
        concurrency_update_interval: seconds of a window.
        max_concurrency_limit: the limit's upper bound; `min_concurrency` is its lower one, and that of a measurement.
        min_rtt_interval: seconds between two measurements of minRTT; `jitter` percent of it are added at random.
        request_count: calls that make up a measurement.
        buffer: percent by which latency may exceed minRTT before the limit falls.
    """

    sample_aggregate_percentile: Percent = 50.0
    concurrency_update_interval: Interval = 0.1
    max_concurrency_limit: Annotated[int, Whole(1, 2**32 - 1)] = 1000
    min_rtt_interval: Interval = 60.0
    request_count: Annotated[int, Whole(1, 2**32 - 1)] = 50
    min_concurrency: Annotated[int, Whole(1, 2**32 - 1)] = 3
    jitter: Percent = 15.0
    buffer: Annotated[float, Number(0.0)] = 25.0


class AdaptiveConcurrency:
    """A `Limit` by Envoy's gradient controller.

    Args:
        settings: see `GradientSettings`.
        clock: seconds, of any start.
        seed: of the jitter.

    `limit` is how many calls may be in flight now, `active` how many are. Work that is due by time is done as calls
    come and go; there is no task.

    >>> limits = AdaptiveConcurrency()
    >>> done = limits.admit()
    >>> limits.limit, limits.active
    (3, 1)
    >>> done(True)
    """

    def __init__(
        self,
        settings: GradientSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        self.settings = settings or GradientSettings()
        self.limit = self.settings.min_concurrency
        self.active = 0
        self.min_rtt = 0.0  # seconds; of the last measurement
        self._clock = clock
        self._random = random.Random(seed)
        self._latencies: list[float] = []
        self._at_minimum = 0  # windows in a row
        self._deferred = self.limit  # the limit to return to after a measurement
        self._measuring = True
        self._epoch = clock()  # calls that began before it belong to another measurement
        self._window_ends = self._epoch + self.settings.concurrency_update_interval
        self._measure_at = math.inf

    def admit(self) -> Callable[[bool | None], None]:
        """See `Limit`."""
        now = self._clock()
        self._catch_up(now)
        if self.active >= self.limit:
            raise Overloaded(f"{self.active} calls in flight: expected at most {self.limit}, by their latency")
        self.active += 1
        return _Admitted(self, now)

    def _ended(self, began: float, answered: bool) -> None:
        self.active -= 1
        now = self._clock()
        if answered and began >= self._epoch:
            self._latencies.append(now - began)
            if self._measuring and len(self._latencies) >= self.settings.request_count:
                self._end_measurement(now)
        self._catch_up(now)

    def _catch_up(self, now: float) -> None:
        if not self._measuring and now >= self._window_ends:
            self._window_ends = now + self.settings.concurrency_update_interval
            if self._latencies:
                self._set_limit(self._next_limit(self._aggregate()))
        if not self._measuring and now >= self._measure_at:
            self._begin_measurement(now)

    def _begin_measurement(self, now: float) -> None:
        self._measuring = True
        self._deferred = self.limit
        self._set_limit(self.settings.min_concurrency)
        self._latencies.clear()
        self._epoch = now

    def _end_measurement(self, now: float) -> None:
        self.min_rtt = self._aggregate()
        # Still measuring: what returns to its old value is no window at the least limit.
        self._set_limit(self._deferred)
        self._measuring = False
        self._measure_at = now + self.settings.min_rtt_interval * (
            1 + self._random.random() * self.settings.jitter / 100
        )
        self._window_ends = now + self.settings.concurrency_update_interval

    def _aggregate(self) -> float:
        """The percentile of the latencies, which are then forgotten."""
        ordered = sorted(self._latencies)
        self._latencies.clear()
        rank = math.ceil(self.settings.sample_aggregate_percentile / 100 * len(ordered))
        return ordered[max(rank, 1) - 1]

    def _next_limit(self, sample_rtt: float) -> int:
        """gradient = minRTT x (1 + buffer) / sampleRTT in [0.5, 2]; limit x gradient + its root, in bounds."""
        allowed = self.min_rtt * (1 + self.settings.buffer / 100)
        gradient = 2.0 if sample_rtt <= 0 else max(0.5, min(2.0, allowed / sample_rtt))
        limit = self.limit * gradient
        grown = int(limit + math.sqrt(limit))
        return max(self.settings.min_concurrency, min(self.settings.max_concurrency_limit, grown))

    def _set_limit(self, limit: int) -> None:
        least = self.settings.min_concurrency
        at_minimum = not self._measuring and self.limit == limit == least
        self._at_minimum = self._at_minimum + 1 if at_minimum else 0
        self.limit = limit
        if self._at_minimum >= _MIN_WINDOWS_BEFORE_MEASURING:
            self._measure_at = -math.inf


class _Admitted:
    """One call that was let in; called once with how it ended."""

    __slots__ = ("_began", "_limits")

    def __init__(self, limits: AdaptiveConcurrency, began: float) -> None:
        self._limits: AdaptiveConcurrency | None = limits
        self._began = began

    def __call__(self, ok: bool | None) -> None:
        limits, self._limits = self._limits, None
        if limits is not None:
            limits._ended(self._began, ok is not None)
