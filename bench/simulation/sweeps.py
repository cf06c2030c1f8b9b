"""How much a policy's settings matter: each over a range, in a handful of scenarios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.simulation.goals import BIMODAL, TENTH_SLOW, Figure, by_seed, event_figure, fleet, over
from lbcore import Adaptive, LeastRequest, PeakEwma
from lbcore.policy import Policy
from lbcore.simulation import FailFast, Outcome, Report, Row, Scenario, Servers, SlowDown, run

__all__ = ["LINES", "P99_TO_JSQ", "SWEEPS", "Line", "Sweep", "grows", "sweep_table"]

GROWS = 1.5  # p99 at the end over p99 in the middle, above which queues grow without bound
QUEUES_GROW = 1.25  # the same of requests in flight
P99_TO_JSQ = over("jsq")
TENTH_20X = (Servers(count=90), Servers(count=10, speed=0.05))


@dataclass(frozen=True)
class Line:
    """A scenario, and what of it is told."""

    name: str
    scenario: Scenario
    figure: Figure = P99_TO_JSQ


def lines() -> tuple[Line, ...]:
    share = event_figure("share_during")
    slowed = SlowDown(servers=5, at=15.0, duration=20.0)
    recovering = SlowDown(servers=5, at=10.0, duration=10.0)
    failing = (FailFast(servers=1),)
    half = (FailFast(servers=5, share=50.0),)
    return (
        Line("1 client, 90 %", fleet(90.0)),
        Line("1 client, bimodal, 80 %", fleet(80.0, service_time=BIMODAL)),
        Line("1 client, tenth 5x slower, 90 %", fleet(90.0, TENTH_SLOW)),
        Line("1 client, 5 slow down, 85 %", fleet(85.0, events=(slowed,))),
        Line("20 clients, 90 %", fleet(90.0, clients=20)),
        Line("20 clients, tenth 5x slower, 90 %", fleet(90.0, TENTH_SLOW, clients=20)),
        Line("20 clients, tenth 20x slower, 90 %", fleet(90.0, TENTH_20X, clients=20)),
        Line("20 clients, reports, tenth 5x slower, 90 %", fleet(90.0, TENTH_SLOW, clients=20, reports=True)),
        Line("100 clients, tenth 5x slower, 90 %", fleet(90.0, TENTH_SLOW, clients=100)),
        Line("100 clients, reports, tenth 5x slower, 90 %", fleet(90.0, TENTH_SLOW, clients=100, reports=True)),
        Line("20 clients, 1 fails fast, 70 %: % of traffic", fleet(70.0, clients=20, events=failing), share),
        Line("20 clients, 5 fail half the time, 70 %: % of traffic", fleet(70.0, clients=20, events=half), share),
        Line(
            "20 clients, 5 were 10x slower, 70 %: s to recover",
            fleet(70.0, clients=20, events=(recovering,), requests=400_000),
            event_figure("time_to_recover"),
        ),
    )


LINES = lines()


@dataclass(frozen=True)
class Sweep:
    name: str
    policies: Sequence[Policy]
    field: str
    values: Sequence[float]

    def variants(self) -> list[Policy]:
        return [replace(policy, **{self.field: value}) for policy in self.policies for value in self.values]


DECAYS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
PEAKS = (PeakEwma(), PeakEwma(selection_method="full_scan"))
SWEEPS = (
    Sweep("adaptive recovery_time", (Adaptive(),), "recovery_time", DECAYS),
    Sweep("adaptive memory", (Adaptive(),), "memory", (5.0, 10.0, 20.0, 50.0, 200.0, 1000.0)),
    Sweep("adaptive sample_limit", (Adaptive(),), "sample_limit", (1.5, 2.0, 3.0, 5.0, 1000.0)),
    Sweep("adaptive error_penalty", (Adaptive(),), "error_penalty", (3.0, 10.0, 30.0, 100.0)),
    Sweep("peak_ewma decay_time", PEAKS, "decay_time", DECAYS),
    Sweep("peak_ewma error_penalty", PEAKS, "error_penalty", (0.0, 10.0, 30.0, 100.0)),
    Sweep("peak_ewma choice_count", (PeakEwma(),), "choice_count", (2, 3, 5, 10)),
    Sweep("least_request choice_count", (LeastRequest(),), "choice_count", (2, 3, 5, 10)),
)


def sweep_table(sweep: Sweep, seeds: int, jobs: int) -> str:
    """Markdown: p99 over JSQ's or what else a line tells, and a mark where queues grow without bound."""
    text = [f"\n### {sweep.name}: p99 / JSQ, medians of {seeds} seeds\n"]
    variants = sweep.variants()
    names = [f"{getattr(each, sweep.field):g}" for each in variants]
    if len(sweep.policies) > 1:
        names = [f"{each.selection_method} {name}" for each, name in zip(variants, names, strict=True)]  # type: ignore[union-attr]
    text += [f"| {sweep.field} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for line in LINES:
        report = run(line.scenario, policies=variants, seeds=seeds, jobs=jobs)
        if len(report.rows) < 2 + len(variants):  # a value is the default, and so of the same name as no other
            raise AssertionError(f"{line.name}: {len(report.rows) - 2} rows for {len(variants)} variants")
        text.append(f"| {line.name} | {' | '.join(cell(line, report, row) for row in report.rows[2:])} |")
    return "\n".join(text)


def cell(line: Line, report: Report, row: Row) -> str:
    figure = statistics.median(line.figure(outcomes, row.name) for outcomes in by_seed(report))
    return f"{figure:.3g}" + " **grows**" * grows(line, row)


def grows(line: Line, measured: Row | Outcome) -> bool:
    """Whether queues do, without an event to explain it."""
    return not line.scenario.events and (measured.growth > GROWS or measured.queue_growth > QUEUES_GROW)
