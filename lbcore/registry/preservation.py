"""Self-preservation: when most of a service goes silent at once, it is more likely that nobody can be heard.

The judgement looks beyond the leases that have run out: an agent that was cut off a moment later than another has
missed its heartbeats too, though its lease still runs. So the first lease to run out already finds the others overdue,
and nothing is lost before the judgement can be made. Source: Eureka's self-preservation mode, Nacos' protect threshold.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["OVERDUE", "mass_loss"]

OVERDUE = 0.5
"""The share of a lease's time to live after which silence means a missed heartbeat: agents speak every third of it."""


def mass_loss(silences: Iterable[float], max_expiry_percent: float, min_leases: int) -> bool:
    """Whether so much of a service is silent that none of it may be removed for its silence.

    `silences` has, for each lease, how long it has not been heard of, as a share of its time to live.

    >>> mass_loss([1.0, 0.9, 0.8, 0.1, 0.1], 50.0, 5), mass_loss([1.0, 0.1, 0.1, 0.1, 0.1], 50.0, 5)
    (True, False)
    """
    leases = overdue = 0
    for silence in silences:
        leases += 1
        overdue += silence > OVERDUE
    return leases >= min_leases and overdue * 100.0 > max_expiry_percent * leases
