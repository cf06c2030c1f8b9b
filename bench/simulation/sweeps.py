"""How much a policy's settings matter: each over a range, in a handful of scenarios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.simulation.goals import BIMODAL, TENTH_SLOW, fleet
from lbcore import Adaptive, PeakEwma
from lbcore.policy import Policy
from lbcore.simulation import Row, Scenario, SlowDown, run

__all__ = ["SWEEPS", "Sweep", "sweep_table"]

GROWS = 1.5  # p99 at the end over p99 in the middle, above which queues grow without bound

SCENARIOS: dict[str, Scenario] = {
    "1 client, 90 %": fleet(90.0),
    "1 client, bimodal, 80 %": fleet(80.0, service_time=BIMODAL),
    "1 client, tenth slow, 90 %": fleet(90.0, TENTH_SLOW),
    "1 client, 5 slow down, 85 %": fleet(85.0, events=(SlowDown(servers=5, at=15.0, duration=20.0),)),
    "20 clients, 90 %": fleet(90.0, clients=20),
    "20 clients, tenth slow, 90 %": fleet(90.0, TENTH_SLOW, clients=20),
    "20 clients, reports, tenth slow, 90 %": fleet(90.0, TENTH_SLOW, clients=20, reports=True),
    "100 clients, reports, tenth slow, 90 %": fleet(90.0, TENTH_SLOW, clients=100, reports=True),
}


@dataclass(frozen=True)
class Sweep:
    name: str
    policies: Sequence[Policy]
    field: str
    values: Sequence[float]

    def variants(self) -> list[Policy]:
        return [replace(policy, **{self.field: value}) for policy in self.policies for value in self.values]


DECAYS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
SWEEPS = (
    Sweep("peak_ewma decay_time", (PeakEwma(), PeakEwma(selection_method="full_scan")), "decay_time", DECAYS),
    Sweep("adaptive recovery_time", (Adaptive(),), "recovery_time", DECAYS),
    Sweep("adaptive memory", (Adaptive(),), "memory", (5.0, 10.0, 20.0, 50.0, 200.0)),
    Sweep("adaptive sample_limit", (Adaptive(),), "sample_limit", (1.5, 2.0, 3.0, 5.0, 1000.0)),
    Sweep("adaptive error_penalty", (Adaptive(),), "error_penalty", (3.0, 10.0, 30.0, 100.0)),
)


def sweep_table(sweep: Sweep, seeds: int, jobs: int) -> str:
    """Markdown: p99 over JSQ's, and a mark where queues grow without bound."""
    lines = [f"\n### {sweep.name}: p99 / JSQ, medians of {seeds} seeds\n"]
    variants = sweep.variants()
    names = [f"{sweep.field} {getattr(each, sweep.field):g}" for each in variants]
    if len(sweep.policies) > 1:
        names = [f"{each.selection_method} {name}" for each, name in zip(variants, names, strict=True)]  # type: ignore[union-attr]
    lines += [f"| scenario | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for title, scenario in SCENARIOS.items():
        report = run(scenario, policies=variants, seeds=seeds, jobs=jobs)
        cells = [cell(row) for row in report.rows[2:]]
        if len(cells) < len(variants):  # a value is the default, and so of the same name as no other
            raise AssertionError(f"{title}: {len(cells)} rows for {len(variants)} variants")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(row: Row) -> str:
    return f"{row.p99_to_jsq:.2f}" + (" **grows**" if row.growth > GROWS else "")
