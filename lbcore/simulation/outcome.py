"""What one run measured: latencies, errors, use of the servers, and how each event was met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from lbcore._core import Simulation
from lbcore.simulation.events import Event, FailFast, Join, Leave, Pause, SlowDown
from lbcore.simulation.scenario import Scenario

__all__ = ["EventOutcome", "Outcome", "outcome_of"]

SUCCEEDED = 1
QUANTILES = 1.0 - numpy.logspace(0.0, -4.0, 201)  # of the latency curve: evenly in the logarithm of what is slower
MOMENTS = 200  # at which requests in flight are counted, in a fifth of the time
BINS = 100  # of the curves over time
ENOUGH_PICKS = 60  # in a window, at a fair share, to call a share diverted or recovered
STEPS = 8  # that such a window is moved by
RECOVERED = 0.8  # of the fair share

Floats = NDArray[numpy.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOutcome:
    """How the traffic of an event's servers changed. Shares are in percent of all picks, retries included.

    Fields:
        kind: the event's name.
        fair_share, fair_share_during: those servers' part of the fleet's capacity, as it is and while the event lasts.
        share_before, share_during, share_after: their part of the picks then; None where there is no such time.
        share_first_second: in the first second of the event.
        time_to_divert: seconds from its beginning until their share fell half of the way to the fair one; None: never,
            or it need not.
        time_to_recover: seconds from its end (of a join: its beginning) until they had 80 % of their fair share; None:
            never, or it has no end.
        curve: share by time, for the bins of `Outcome.times`.
    """

    kind: str
    at: float
    fair_share: float
    fair_share_during: float
    share_before: float | None
    share_during: float | None
    share_after: float | None
    share_first_second: float | None
    time_to_divert: float | None
    time_to_recover: float | None
    curve: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Figures of one run, of the requests that arrived in the measured time.

    Fields:
        p50, p99, p999, mean: latency in seconds as clients see it, network and retries included, of requests that
            succeeded; NaN where none did.
        error_percent: requests that failed in the end.
        attempts: tries a request, on average.
        max_in_flight: at one server at once, those under way to it and back included.
        max_over_mean_utilization: of the busiest server over that of all.
        mean_utilization: 0 to 1.
        unanswered: requests in flight when the last one came.
        growth: p99 in the last fifth of the time over that in the middle fifth. Well above 1, and without an event to
            explain it, it says that queues grow without bound.
        queue_growth: the same of the requests in flight, on average. It also tells where it is few requests that wait
            ever longer, which p99 does not show.
        events: how each was met, in the order of the scenario.
        curve: latencies in seconds at the quantiles `QUANTILES`.
        times, p99_by_time: seconds since the start, and p99 of the requests that arrived in each bin from there on.
    """

    p50: float
    p99: float
    p999: float
    mean: float
    error_percent: float
    attempts: float
    max_in_flight: int
    max_over_mean_utilization: float
    mean_utilization: float
    unanswered: int
    growth: float
    queue_growth: float
    events: tuple[EventOutcome, ...]
    curve: tuple[float, ...]
    times: tuple[float, ...]
    p99_by_time: tuple[float, ...]


def outcome_of(scenario: Scenario, simulation: Simulation, affected: list[list[int]]) -> Outcome:
    """Reads a simulation that has ended."""
    arrivals = simulation.records.arrival_times / 1e9
    latencies = simulation.records.latencies / 1e9
    after, until = scenario.window
    measured = arrivals >= after
    if until is not None:
        measured &= arrivals < until
    succeeded = simulation.records.states == SUCCEEDED
    good = latencies[measured & succeeded]
    count = max(int(measured.sum()), 1)
    last = float(arrivals[-1])
    end = last if until is None else min(until, last)
    figures = simulation.server_figures()
    busy = numpy.array([each[0] for each in figures]) / 1e9 / max(end - after, 1e-9)
    mean_busy = float(numpy.average(busy, weights=scenario.fleet.workers))
    curve = numpy.quantile(good, QUANTILES) if good.size else numpy.full(QUANTILES.size, numpy.nan)
    p50, p99, p999 = numpy.quantile(good, (0.5, 0.99, 0.999)) if good.size else (numpy.nan,) * 3
    times = numpy.linspace(0.0, last, BINS, endpoint=False)
    return Outcome(
        p50=float(p50),
        p99=float(p99),
        p999=float(p999),
        mean=float(good.mean()) if good.size else float("nan"),
        error_percent=100.0 * float((measured & ~succeeded).sum()) / count,
        attempts=float(simulation.records.tries[measured].mean()) if measured.any() else 0.0,
        max_in_flight=max(each[1] for each in figures),
        max_over_mean_utilization=float(busy.max()) / mean_busy if mean_busy > 0.0 else 1.0,
        mean_utilization=mean_busy,
        unanswered=int((arrivals + latencies > last).sum()),
        growth=_growth(arrivals[succeeded] / last, latencies[succeeded]),
        queue_growth=_queue_growth(arrivals, latencies, last),
        events=tuple(
            _event_outcome(scenario, simulation, event, servers, times)
            for event, servers in zip(scenario.events, affected, strict=True)
        ),
        curve=tuple(curve.tolist()),
        times=tuple(times.tolist()),
        p99_by_time=_p99_by_time(arrivals[succeeded], latencies[succeeded], times),
    )


def _growth(places: Floats, latencies: Floats) -> float:
    middle, end = latencies[(places >= 0.4) & (places < 0.6)], latencies[places >= 0.8]
    if not middle.size or not end.size:
        return float("nan")
    return float(numpy.quantile(end, 0.99) / numpy.quantile(middle, 0.99))


def _queue_growth(arrivals: Floats, latencies: Floats, last: float) -> float:
    moments = numpy.linspace(0.0, last, 5 * MOMENTS, endpoint=False)
    ended = numpy.searchsorted(numpy.sort(arrivals + latencies), moments)
    in_flight = numpy.searchsorted(arrivals, moments) - ended
    middle = in_flight[2 * MOMENTS : 3 * MOMENTS].mean()
    return float(in_flight[4 * MOMENTS :].mean() / middle) if middle else float("nan")


def _p99_by_time(arrivals: Floats, latencies: Floats, times: Floats) -> tuple[float, ...]:
    edges = numpy.searchsorted(arrivals, times)
    parts = numpy.split(latencies, edges[1:])
    return tuple(float(numpy.quantile(part, 0.99)) if part.size else float("nan") for part in parts)


def _event_outcome(
    scenario: Scenario, simulation: Simulation, event: Event, servers: list[int], times: Floats
) -> EventOutcome:
    picks = _Picks(simulation, servers)
    begin, end = event.at, picks.last
    if not isinstance(event, Join) and event.duration is not None:
        end = min(picks.last, begin + event.duration)
    ends = not isinstance(event, Join) and end < picks.last
    weights = numpy.array(scenario.fleet.speeds) * numpy.array(scenario.fleet.workers)
    chosen = numpy.zeros(weights.size, dtype=bool)
    chosen[servers] = True
    fair = 100.0 * float(weights[chosen].sum() / weights.sum())
    weights[chosen] *= _capacity_left(event)
    during = 100.0 * float(weights[chosen].sum() / weights.sum()) if weights.sum() else fair
    window = picks.window(fair)
    recovering = begin if isinstance(event, Join) else end if ends else None
    midway = (fair + during) / 2.0
    return EventOutcome(
        kind=type(event).__name__,
        at=begin,
        fair_share=fair,
        fair_share_during=during,
        share_before=picks.share(0.0, begin),
        share_during=picks.share(begin, end),
        share_after=picks.share(end, picks.last) if ends else None,
        share_first_second=picks.share(begin, begin + 1.0),
        time_to_divert=picks.first(begin, end, window, lambda share: share <= midway) if during < fair else None,
        time_to_recover=(
            None
            if recovering is None or not servers
            else picks.first(recovering, picks.last, window, lambda share: share >= RECOVERED * fair)
        ),
        curve=picks.curve(times),
    )


def _capacity_left(event: Event) -> float:
    """The part of its servers' capacity that is left while an event lasts; a server that fails has none to give."""
    if isinstance(event, SlowDown):
        return 1.0 / event.factor
    if isinstance(event, Pause | Leave):
        return 0.0
    return 1.0 - event.share / 100.0 if isinstance(event, FailFast) else 1.0


class _Picks:
    """When clients picked, and which of the picks went to some servers."""

    def __init__(self, simulation: Simulation, servers: list[int]) -> None:
        times, chosen = simulation.records.picks
        self._times: Floats = times / 1e9
        affected = numpy.zeros(int(chosen.max(initial=0)) + max(servers, default=0) + 1, dtype=bool)
        affected[servers] = True
        self._hits = numpy.concatenate(([0], numpy.cumsum(affected[chosen])))
        self.last = float(self._times[-1]) if self._times.size else 0.0

    def window(self, fair_share: float) -> float:
        """Seconds in which enough picks would go to the servers to tell their share from chance."""
        rate = self._times.size / max(self.last, 1e-9) * fair_share / 100.0
        return max(0.1, ENOUGH_PICKS / rate) if rate > 0.0 else self.last

    def share(self, begin: float, end: float) -> float | None:
        """Their percentage of the picks in [begin, end); None where there are none."""
        share = float(self._shares(numpy.array([begin]), numpy.array([end]))[0])
        return None if numpy.isnan(share) else share

    def first(
        self, begin: float, end: float, window: float, reached: Callable[[Floats], NDArray[numpy.bool]]
    ) -> float | None:
        """Seconds from `begin` until the share over the window from there on is as asked; None: not before `end`."""
        window = min(window, end - begin)
        starts = numpy.arange(begin, end - window * 0.999, window / STEPS) if window > 0.0 else numpy.empty(0)
        found = numpy.flatnonzero(reached(self._shares(starts, starts + window)))
        return float(starts[found[0]] - begin) if found.size else None

    def curve(self, times: Floats) -> tuple[float, ...]:
        """Their percentage of the picks from each time to the next; NaN where there are none."""
        return tuple(self._shares(times, numpy.append(times[1:], self.last)).tolist())

    def _shares(self, begins: Floats, ends: Floats) -> Floats:
        first, last = numpy.searchsorted(self._times, begins), numpy.searchsorted(self._times, ends)
        with numpy.errstate(invalid="ignore"):
            return 100.0 * (self._hits[last] - self._hits[first]) / (last - first)
