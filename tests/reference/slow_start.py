"""The weight of an endpoint that has just become available: Envoy load_balancer_impl.cc `applySlowStartFactor`.

Departure: time runs in nanoseconds and moves the weight by itself; Envoy counts milliseconds and looks at the clock
when hosts change or an endpoint is scheduled again.
"""

from __future__ import annotations

import math


def slow_start_factor(age: float, window: float, aggression: float = 1.0, min_weight_percent: float = 10.0) -> float:
    """What the weight is multiplied with, `age` seconds after the endpoint became available."""
    if age >= window:
        return 1.0
    elapsed = max(age, 0.001) / window  # Envoy: at least a millisecond
    return min(1.0, max(math.pow(elapsed, 1.0 / aggression), min_weight_percent / 100.0))
