"""A scenario: a fleet, its traffic, what happens to it, and the policies to compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

from lbcore.errors import Mistake
from lbcore.policy import LeastRequest, Policy, RoundRobin
from lbcore.schema import Checked
from lbcore.settings import OutlierDetection
from lbcore.simulation.events import Burst, Event, Join
from lbcore.simulation.fleet import Fleet
from lbcore.simulation.traffic import Measured, Reports, Retries, Traffic
from lbcore.validation import Whole

__all__ = ["Scenario"]

WARM_UP = 0.1  # of the requests, where a scenario does not say what is measured
LONGEST = 1e8  # simulated seconds; 64 bits of nanoseconds hold ninety times as many
MAX_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario(Checked):
    """What is simulated.

    Fields:
        fleet, traffic: who serves, and what.
        reports: whether servers tell their load; None: they do not.
        retries: whether clients send failed requests again; None: they do not.
        outlier_detection: when clients eject servers; None: they never do.
        events: what happens meanwhile.
        measured: which requests count; None: all but those of the first tenth of the time.
        policies: which to compare, beside the baselines.
        seed: of every random choice.

    Raises `InvalidSetting`.

    >>> from lbcore.simulation import Fleet, Scenario, Servers, Traffic
    >>> Scenario(fleet=Fleet(servers=(Servers(count=100),)), traffic=Traffic(load=90.0, requests=90_000)).duration
    10.0
    """

    fleet: Fleet
    traffic: Traffic
    reports: Reports | None = None
    retries: Retries | None = None
    outlier_detection: OutlierDetection | None = None
    events: tuple[Event, ...] = ()
    measured: Measured | None = None
    policies: tuple[Policy, ...] = (LeastRequest(), LeastRequest(selection_method="full_scan"), RoundRobin())
    seed: Annotated[int, Whole(0, MAX_SEED)] = 1

    def contradictions(self) -> Iterator[Mistake]:
        count = len(self.fleet.speeds)
        joining = 0
        if self.duration > LONGEST:
            what = f"requests {self.traffic.requests}: expected fewer, they take {self.duration:.3g} seconds to come"
            yield Mistake(("traffic", "requests"), f"{what}, and a simulation at most {LONGEST:.0e}")
        for index, event in enumerate(self.events):
            if event.at >= self.duration:
                what = f"at {event.at:g}: expected before the last of the {self.traffic.requests} requests"
                yield Mistake(("events", index, "at"), f"{what}, which comes after about {self.duration:.3g} seconds")
            if isinstance(event, Burst):
                continue
            if event.servers > count:
                yield Mistake(("events", index, "servers"), f"servers {event.servers}: expected at most {count}")
            if isinstance(event, Join):
                joining += event.servers
                if joining >= count:
                    what = f"servers {event.servers}: expected fewer to join than there are, {count}"
                    yield Mistake(("events", index, "servers"), what)
        if self.measured is not None and self.measured.after >= self.duration:
            what = f"after {self.measured.after:g}: expected before the last request, after about {self.duration:.3g}"
            yield Mistake(("measured", "after"), what)

    @property
    def interval(self) -> float:
        """Seconds between two requests, on average and outside bursts."""
        return self.traffic.service_time.mean / self.fleet.capacity / (self.traffic.load / 100.0)

    @property
    def duration(self) -> float:
        """About how many seconds pass until the last request comes; bursts shorten it."""
        spent = 0.0
        for event in self.events:
            if isinstance(event, Burst):
                spent += event.duration * (event.factor - 1.0)
        requests = self.traffic.requests
        return max(requests * self.interval - spent, requests * self.interval / 100.0)

    @property
    def window(self) -> tuple[float, float | None]:
        """The measured time: from, until; None: to the end."""
        if self.measured is None:
            return self.duration * WARM_UP, None
        return self.measured.after, self.measured.until

    def with_requests(self, requests: int) -> Scenario:
        """The same with another number of requests. Raises `InvalidSetting` where an event would not happen."""
        return replace(self, traffic=replace(self.traffic, requests=requests))
