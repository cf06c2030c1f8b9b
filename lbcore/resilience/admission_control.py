"""Refusing calls as their success rate falls: `AdmissionControl`. Source: Envoy admission_control.cc."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from lbcore.errors import Overloaded
from lbcore.schema import Checked
from lbcore.validation import Interval, Number, Percent, Uint32

__all__ = ["AdmissionControl", "AdmissionSettings"]

_BUCKET = 1.0  # seconds; Envoy's granularity of what it remembers


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionSettings(Checked):
    """Envoy's AdmissionControl.

    Fields:
        sampling_window: seconds that are remembered.
        sr_threshold: percent of success below which calls are refused.
        aggression: 1 refuses in proportion; more refuses more, sooner.
        max_rejection_probability: percent.
        rps_threshold: with fewer calls a second none is refused.
    """

    sampling_window: Interval = 30.0
    sr_threshold: Annotated[float, Number(1.0, 100.0)] = 95.0
    aggression: Annotated[float, Number(1.0)] = 1.0
    max_rejection_probability: Percent = 80.0
    rps_threshold: Uint32 = 0


class AdmissionControl:
    """A `Limit` that refuses with probability ((n - ok / threshold) / (n + 1))^(1 / aggression).

    Calls that were refused are not counted, so it never locks itself out.

    >>> control = AdmissionControl()
    >>> for _ in range(100):
    ...     control.record(False)
    >>> control.rejection_probability
    0.8
    """

    def __init__(
        self,
        settings: AdmissionSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        self.settings = settings or AdmissionSettings()
        self._clock = clock
        self._random = random.Random(seed)
        self._buckets: deque[list[float]] = deque()  # when it began, calls, successes
        self._calls = 0
        self._successes = 0

    @property
    def rejection_probability(self) -> float:
        """Of the next call, from 0 to 1."""
        self._forget(self._clock())
        settings = self.settings
        if self._calls / settings.sampling_window < settings.rps_threshold:
            return 0.0
        wanted = (self._calls - self._successes / (settings.sr_threshold / 100)) / (self._calls + 1)
        return min(math.pow(max(wanted, 0.0), 1 / settings.aggression), settings.max_rejection_probability / 100)

    def admit(self) -> Callable[[bool | None], None]:
        """See `Limit`."""
        probability = self.rejection_probability
        if self._random.random() < probability:
            rate = 100 * self._successes / self._calls
            raise Overloaded(f"only {rate:.1f} % of calls succeed: {100 * probability:.0f} % are refused")
        return self._ended

    def record(self, ok: bool) -> None:
        """Counts a call that has ended."""
        now = self._clock()
        self._forget(now)
        if not self._buckets or now - self._buckets[-1][0] >= _BUCKET:
            self._buckets.append([now, 0, 0])
        self._buckets[-1][1] += 1
        self._buckets[-1][2] += ok
        self._calls += 1
        self._successes += ok

    def _ended(self, ok: bool | None) -> None:
        if ok is not None:
            self.record(ok)

    def _forget(self, now: float) -> None:
        while self._buckets and now - self._buckets[0][0] >= self.settings.sampling_window:
            _, calls, successes = self._buckets.popleft()
            self._calls -= int(calls)
            self._successes -= int(successes)
