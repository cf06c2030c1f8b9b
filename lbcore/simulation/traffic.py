"""What the fleet is asked to serve, and how clients behave: load, retries, reports of load, the measured time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from lbcore.errors import Mistake
from lbcore.schema import Checked
from lbcore.simulation.service_time import Exponential, ServiceTime
from lbcore.validation import Interval, Number, Percent, Seconds, Uint32, Whole

__all__ = ["Measured", "Reports", "Retries", "Traffic"]

MAX_REQUESTS = 100_000_000
MAX_PROBES = 16
EXPONENTIAL = Exponential()


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic(Checked):
    """Requests that come at random (a Poisson process).

    Fields:
        load: percent of the fleet's capacity that they need, servers as they are without events; above 100 queues grow
            without end.
        service_time: how much work each is.
        requests: how many come in all.
        probes: how many probes a client of policy `Prequal` sends beside each attempt, to servers of its own at random;
            they bring requests in flight and the median of recent latencies. Clients of other policies send none.
    """

    load: Annotated[float, Number(0.0, 1000.0, above=True)]
    service_time: ServiceTime = EXPONENTIAL
    requests: Annotated[int, Whole(1, MAX_REQUESTS)] = 400_000
    probes: Annotated[int, Whole(0, MAX_PROBES)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports(Checked):
    """Servers tell their load beside each answer: requests in flight, utilisation, rates of requests and of errors.

    Fields:
        loss: percent of the answers that come without a report.
        window: seconds over which servers average what they report.
        delay: seconds by which reports are behind: each tells the load as it was so long before the answer.

    Source: ORCA (gRFC A51); requests in flight as in Prequal (Wydrowski et al., NSDI 2024).
    """

    loss: Percent = 0.0
    window: Interval = 1.0
    delay: Annotated[float, Seconds(0.0)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries(Checked):
    """Clients send a request anew when it fails, or when it has taken too long; the server works on all the same.

    Fields:
        num_retries: how often at most.
        per_try_timeout: seconds after which an attempt counts as failed; None: clients wait for ever.
        budget_percent, min_retry_concurrency: a client retries while fewer of its attempts than this percentage of them
            all are retries, or fewer than so many.

    Source: Envoy RetryPolicy and RetryBudget (circuit_breaker.proto).
    """

    num_retries: Annotated[int, Whole(0, 100)] = 1
    per_try_timeout: Interval | None = None
    budget_percent: Percent = 20.0
    min_retry_concurrency: Uint32 = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured(Checked):
    """The time whose requests count: those that arrive `after` and before `until`, in seconds; None: to the end."""

    after: Annotated[float, Seconds(0.0)] = 0.0
    until: Annotated[float, Seconds(0.0)] | None = None

    def contradictions(self) -> Iterator[Mistake]:
        if self.until is not None and self.until <= self.after:
            yield Mistake(("until",), f"until {self.until:g}: expected more than after, {self.after:g}", see=("after",))
