"""What a scenario shows: each policy's figures as medians over seeds, beside the baselines of the same requests."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import statistics
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from lbcore.policy import Policy
from lbcore.schema import snake_case
from lbcore.simulation.outcome import EventOutcome, Outcome
from lbcore.simulation.run import Baseline, Contender, Progress, run_once
from lbcore.simulation.scenario import Scenario

__all__ = ["Report", "Row", "contender_name", "run"]

_COLUMNS = (
    *("POLICY", "P50 ms", "P99 ms", "P999 ms", "P99/JSQ", "P99/SED", "ERRORS %", "IN FLIGHT", "UTIL max/avg"),
    *("DIVERT s", "RECOVER s"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contender: the medians over the seeds of what `Outcome` holds, and ratios to the baselines.

    Fields:
        name: as `contender_name` has it.
        p99_to_jsq, p99_to_sed, p999_to_jsq, p999_to_sed: each seed's ratio, then the median of them.
        p99_to_jsq_range, p99_to_sed_range: the least and the greatest.
        outcomes: one a seed.
    """

    name: str
    p50: float
    p99: float
    p999: float
    mean: float
    p99_to_jsq: float
    p99_to_sed: float
    p999_to_jsq: float
    p999_to_sed: float
    p99_to_jsq_range: tuple[float, float]
    p99_to_sed_range: tuple[float, float]
    error_percent: float
    attempts: float
    max_in_flight: float
    max_over_mean_utilization: float
    mean_utilization: float
    unanswered: float
    growth: float
    queue_growth: float
    outcomes: tuple[Outcome, ...] = field(repr=False)

    def event(self, index: int, figure: str) -> float | None:
        """The median of a figure of an event; None where most seeds have none."""
        return _median_of_some(getattr(outcome.events[index], figure) for outcome in self.outcomes)

    def slowest(self, figure: str) -> float | None:
        """The longest time to divert or to recover of any event; None where there is none."""
        times = [self.event(index, figure) for index in range(len(self.outcomes[0].events))]
        return max((time for time in times if time is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A scenario's rows, the baselines first. `str(report)` is the table."""

    scenario: Scenario
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row:
        """Raises `KeyError`."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def as_json(self) -> dict[str, Any]:
        """Everything but the curves, for `json.dumps`; what is not a number is None."""
        rows = []
        for row in self.rows:
            values = dataclasses.asdict(row)
            del values["outcomes"]
            values["events"] = [
                {"kind": event.kind, **{each: row.event(index, each) for each in _EVENT_FIGURES}}
                for index, event in enumerate(row.outcomes[0].events)
            ]
            rows.append(_finite(values))
        return {"seeds": list(self.seeds), "requests": self.scenario.traffic.requests, "policies": rows}

    def __str__(self) -> str:
        lines = _table(_COLUMNS, [_cells(row) for row in self.rows])
        for index, event in enumerate(self.rows[0].outcomes[0].events):
            if event.fair_share:
                lines += ["", *_event_table(self.rows, index, event)]
        return "\n".join(lines)


_MEDIANS = (
    *("p50", "p99", "p999", "mean", "error_percent", "attempts", "max_in_flight", "max_over_mean_utilization"),
    *("mean_utilization", "unanswered", "growth", "queue_growth"),
)
_EVENT_FIGURES = tuple(each.name for each in dataclasses.fields(EventOutcome) if each.name not in ("kind", "curve"))


def run(
    scenario: Scenario,
    *,
    policies: Sequence[Policy] | None = None,
    seeds: int = 1,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Runs a scenario under the baselines and under each policy, with as many seeds from the scenario's own on.

    Args:
        policies: instead of the scenario's.
        seeds: how many; figures are medians over them.
        jobs: processes that share the work.
        progress: called now and then with the share of the work that is done, 0 to 1.

    >>> from lbcore.simulation import Fleet, Scenario, Servers, Traffic, run
    >>> scenario = Scenario(
    ...     fleet=Fleet(servers=(Servers(count=10),)), traffic=Traffic(load=80.0, requests=20_000), seed=3
    ... )
    >>> report = run(scenario)
    >>> report.row("jsq").p99 <= report.row("least_request").p99 < report.row("round_robin").p99
    True
    """
    chosen = scenario.policies if policies is None else tuple(policies)
    contenders: dict[str, Contender] = {contender_name(each): each for each in (*Baseline, *chosen)}
    numbers = tuple(range(scenario.seed, scenario.seed + seeds))
    work = [(contender, seed) for contender in contenders.values() for seed in numbers]
    ended = _run_all(scenario, work, jobs, progress)
    outcomes = {name: ended[place * seeds : (place + 1) * seeds] for place, name in enumerate(contenders)}
    rows = tuple(_row(name, tuple(each), outcomes["jsq"], outcomes["sed"]) for name, each in outcomes.items())
    return Report(scenario=scenario, seeds=numbers, rows=rows)


def _run_all(
    scenario: Scenario, work: Sequence[tuple[Contender, int]], jobs: int, progress: Progress | None
) -> list[Outcome]:
    """The outcomes of a scenario under each contender and seed, in order."""
    if jobs == 1:
        return [
            run_once(scenario, contender, seed, _part(progress, place, len(work)))
            for place, (contender, seed) in enumerate(work)
        ]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(run_once, scenario, contender, seed) for contender, seed in work]
        for done, _ in enumerate(as_completed(running), 1):
            if progress is not None:
                progress(done / len(work))
        return [each.result() for each in running]


def contender_name(contender: Contender) -> str:
    """The name in tables and for `Report.row`.

    >>> from lbcore import LeastRequest, RoundRobin
    >>> contender_name(RoundRobin()), contender_name(LeastRequest(selection_method="full_scan"))
    ('round_robin', 'least_request(selection_method=full_scan)')
    """
    if isinstance(contender, Baseline):
        return contender.name.lower()
    changed = [
        f"{each.name}={getattr(contender, each.name)}"
        for each in dataclasses.fields(contender)
        if getattr(contender, each.name) != each.default
    ]
    name = snake_case(type(contender).__name__)
    return f"{name}({', '.join(changed)})" if changed else name


def _part(progress: Progress | None, done: int, total: int) -> Progress | None:
    if progress is None:
        return None
    report = progress
    return lambda share: report((done + share) / total)


def _row(name: str, outcomes: tuple[Outcome, ...], jsq: Iterable[Outcome], sed: Iterable[Outcome]) -> Row:
    def ratios(figure: str, baselines: Iterable[Outcome]) -> list[float]:
        pairs = zip(outcomes, baselines, strict=True)
        return [getattr(own, figure) / getattr(base, figure) for own, base in pairs]

    to_jsq, to_sed = ratios("p99", jsq), ratios("p99", sed)
    medians = {each: statistics.median([getattr(outcome, each) for outcome in outcomes]) for each in _MEDIANS}
    return Row(
        name=name,
        p99_to_jsq=statistics.median(to_jsq),
        p99_to_sed=statistics.median(to_sed),
        p999_to_jsq=statistics.median(ratios("p999", jsq)),
        p999_to_sed=statistics.median(ratios("p999", sed)),
        p99_to_jsq_range=(min(to_jsq), max(to_jsq)),
        p99_to_sed_range=(min(to_sed), max(to_sed)),
        outcomes=outcomes,
        **medians,
    )


def _median_of_some(values: Iterable[float | None]) -> float | None:
    everything = list(values)
    some = [value for value in everything if value is not None]
    return statistics.median(some) if 2 * len(some) > len(everything) else None


def _cells(row: Row) -> list[str]:
    return [
        row.name,
        *(f"{1e3 * each:.1f}" for each in (row.p50, row.p99, row.p999)),
        f"{row.p99_to_jsq:.2f}",
        f"{row.p99_to_sed:.2f}",
        f"{row.error_percent:.3g}",
        f"{row.max_in_flight:.0f}",
        f"{row.max_over_mean_utilization:.2f}",
        _seconds(row.slowest("time_to_divert")),
        _seconds(row.slowest("time_to_recover")),
    ]


def _event_table(rows: Iterable[Row], index: int, event: EventOutcome) -> list[str]:
    columns = ("POLICY", "SHARE % before", "first second", "during", "after", "DIVERT s", "RECOVER s")
    figures = ("share_before", "share_first_second", "share_during", "share_after")
    cells = [
        [
            row.name,
            *(_percent(row.event(index, each)) for each in figures),
            _seconds(row.event(index, "time_to_divert")),
            _seconds(row.event(index, "time_to_recover")),
        ]
        for row in rows
    ]
    words = f"{snake_case(event.kind)} at {event.at:g} s: its servers' fair share is {event.fair_share:.3g} %"
    return [f"{words}, {event.fair_share_during:.3g} % while it lasts", *_table(columns, cells)]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in (columns, *rows)
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
