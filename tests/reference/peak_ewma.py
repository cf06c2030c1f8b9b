"""Peak EWMA in plain Python: one endpoint's estimate, and its score."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

PROBATION = 10.0  # an estimate takes at least this many times itself to decay
FAILURES = 10  # answers, of which the share that failed is remembered
FORGET_FAILURES = 10.0


@dataclass
class Node:
    """Times in seconds."""

    decay_time: float = 10.0
    default_rtt: float = 0.01
    penalty: float = 1000.0
    active: int = 0
    estimate: float = 0.0
    at: float | None = None
    error_penalty: float = 30.0
    failing: float = 0.0
    answered_at: float = 0.0

    def observe(self, latency: float, now: float, fleet_mean: float, *, ok: bool = True) -> None:
        self.failing = self._failing(now)
        self.failing += ((0.0 if ok else 1.0) - self.failing) / FAILURES
        self.answered_at = now
        if not ok:
            latency = max(latency, self.estimate, fleet_mean)
        if self.at is None or latency >= self.estimate:
            self.estimate = latency
        else:
            kept = self._kept(now)
            self.estimate = self.estimate * kept + latency * (1.0 - kept)
        self.at = now

    def score(self, now: float, fleet_failing: float) -> float:
        if self.at is None:
            return self.penalty + self.active * 1e-9 if self.active else self.default_rtt
        decay = self._kept(now) if self.active == 0 else 1.0
        averse = 1.0 + self.error_penalty * max(0.0, self._failing(now) - fleet_failing)
        return self.estimate * decay * averse * (self.active + 1)

    def _failing(self, now: float) -> float:
        return self.failing * exp(-(now - self.answered_at) / FORGET_FAILURES)

    def _kept(self, now: float) -> float:
        assert self.at is not None
        return exp(-(now - self.at) / max(self.decay_time, PROBATION * self.estimate))
