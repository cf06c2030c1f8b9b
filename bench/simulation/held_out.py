"""Scenarios drawn at random, on which no policy was tuned: a fixed list of seeds, each of which is one fleet.

`make simulate ARGS=--held-out` runs them and prints every one, good and bad. They were first run after the form of
every policy in the table had been settled on the scenarios marked `develop`; a change of a policy made after a look at
them needs other SEEDS.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.simulation.goals import FULL_SCAN, P2C, PEAK, PEAK_SCAN, PREQUAL, SUBJECT
from lbcore.policy import Policy
from lbcore.simulation import (
    Burst,
    Deterministic,
    Event,
    Exponential,
    FailFast,
    Fleet,
    Hyperexponential,
    Join,
    Leave,
    Lognormal,
    Pareto,
    Pause,
    Reports,
    Scenario,
    Servers,
    ServiceTime,
    SlowDown,
    Traffic,
    run,
)
from lbcore.simulation.report import Report, contender_name

__all__ = ["OTHERS", "SEEDS", "HeldOut", "draw", "held_out_tables"]

SEEDS = range(20_261_126, 20_261_126 + 60)
OTHERS: tuple[Policy, ...] = (P2C, FULL_SCAN, PEAK, PEAK_SCAN, PREQUAL)
FEWEST_REQUESTS, MOST_REQUESTS = 100_000, 400_000
VISITS = 20  # of each client to each server that it knows, where MOST_REQUESTS allow it
MOST_LOAD = 97.0  # percent of what servers that are not affected by an event can serve


NAMES = ("adaptive", "sed", "least_request", "its full scan", "peak_ewma", "its full scan", "prequal")
AS_GOOD = 1.05  # times the best, which is as good for this purpose


@dataclass(frozen=True)
class HeldOut:
    """A scenario and what it is, in words."""

    words: str
    scenario: Scenario


@dataclass(frozen=True)
class Happening:
    """What goes wrong: in words, what part of the capacity it leaves, and the event in a run of some seconds."""

    words: str
    left: float
    event: Callable[[float], Event]


def draw(seed: int) -> HeldOut:
    """The fleet of a seed. Its features are drawn independently of each other."""
    source = random.Random(f"held out/{seed}")
    count = round(3.0 * 100.0 ** source.random())
    clients = round(200.0 ** source.random())
    speeds, servers = draw_servers(source, count)
    kind, service_time = draw_service_time(source)
    subset_size = draw_subset_size(source, count, clients)
    told, reports = draw_reports(source)
    load = source.uniform(50.0, 95.0)
    happening = draw_happening(source, count)
    if happening is not None:
        load = min(load, MOST_LOAD * happening.left)
    fleet = Fleet(
        servers=servers, clients=clients, subset_size=subset_size, network_delay=source.choice([1e-4, 2.5e-4, 1e-3])
    )
    requests = min(MOST_REQUESTS, max(FEWEST_REQUESTS, VISITS * (subset_size or count) * clients))
    duration = requests * service_time.mean / fleet.capacity / (load / 100.0)
    workers = servers[0].workers
    words = [
        f"{clients} client{'s' * (clients > 1)}",
        f"{count} servers" + f" of {workers} workers" * (workers > 1) + f", {speeds}",
        *([f"subsets of {subset_size}"] if subset_size else []),
        f"{kind} {1e3 * service_time.mean:.2g} ms",
        f"{load:.0f} %",
        told,
        *([happening.words] if happening else []),
    ]
    scenario = Scenario(
        fleet=fleet,
        traffic=Traffic(load=load, service_time=service_time, requests=requests, probes=3),
        reports=reports,
        events=(happening.event(duration),) if happening else (),
        seed=seed,
    )
    return HeldOut(", ".join(words), scenario)


def draw_servers(source: random.Random, count: int) -> tuple[str, tuple[Servers, ...]]:
    workers = source.choice([1, 1, 1, 2, 4, 8])
    kind = source.choice(["even", "some slow", "three speeds"])
    if kind == "some slow":
        slow = min(count - 1, max(1, round(count * source.uniform(0.03, 0.5))))
        factor = 1.5 * 8.0 ** source.random()
        groups = (
            Servers(count=count - slow, workers=workers),
            Servers(count=slow, speed=1.0 / factor, workers=workers),
        )
        return f"{slow} of them {factor:.1f}x slower", groups
    if kind == "three speeds":
        first, second = count // 3, (count + 1) // 3
        parts = zip((first, second, count - first - second), (0.5, 1.0, source.uniform(1.2, 3.0)), strict=True)
        made = tuple(Servers(count=part, speed=speed, workers=workers) for part, speed in parts)
        return f"speeds 0.5, 1 and {made[2].speed:.1f}", made
    return "even", (Servers(count=count, workers=workers),)


def draw_service_time(source: random.Random) -> tuple[str, ServiceTime]:
    mean = 0.001 * 100.0 ** source.random()
    kinds: list[tuple[str, ServiceTime]] = [
        ("exponential", Exponential(mean=mean)),
        ("lognormal", Lognormal(mean=mean, sigma=source.uniform(0.5, 1.5))),
        ("Pareto", Pareto(mean=mean, alpha=source.uniform(2.1, 3.0))),
        ("deterministic", Deterministic(mean=mean)),
        (
            "two kinds of",
            Hyperexponential(mean=mean, long_share=source.uniform(0.5, 5.0), long_factor=5.0 * 6.0 ** source.random()),
        ),
    ]
    return source.choice(kinds)


def draw_subset_size(source: random.Random, count: int, clients: int) -> int | None:
    """Of at least a tenth and at most half of the servers, where each of them then has four clients or more."""
    size = max(2, round(count * source.uniform(0.1, 0.5)))
    return size if source.random() < 0.25 and size < count and clients * size >= 4 * count else None


def draw_reports(source: random.Random) -> tuple[str, Reports | None]:
    kind = source.choice(["none", "none", "prompt", "late or lost"])
    if kind == "none":
        return "no reports", None
    if kind == "prompt":
        return "reports", Reports()
    loss, delay = source.uniform(0.0, 80.0), 0.001 * 100.0 ** source.random()
    return f"{loss:.0f} % of the reports lost, {1e3 * delay:.0f} ms late", Reports(loss=loss, delay=delay)


def draw_happening(source: random.Random, count: int) -> Happening | None:
    """Nothing in half of the fleets."""
    some = max(1, round(count * source.uniform(0.02, 0.15)))
    at, lasting = source.uniform(0.2, 0.6), source.uniform(0.1, 0.3)
    rest = 1.0 - some / count
    factor, more = source.uniform(2.0, 20.0), source.uniform(1.1, 1.8)
    kinds = [
        Happening(
            f"{some} of them {factor:.1f}x slower for a while",
            rest,
            lambda s: SlowDown(servers=some, at=at * s, duration=lasting * s, factor=factor),
        ),
        Happening(
            f"{some} of them stand still now and then",
            rest,
            lambda s: Pause(servers=some, at=at * s, duration=0.01 * s, every=0.1 * s),
        ),
        Happening(f"{some} of them fail fast", rest, lambda s: FailFast(servers=some, at=at * s, latency=0.0005)),
        Happening(f"{some} of them join later", rest, lambda s: Join(servers=some, at=at * s)),
        Happening(
            f"{some} of them leave for a while", rest, lambda s: Leave(servers=some, at=at * s, duration=lasting * s)
        ),
        Happening(
            f"{more:.1f} times the traffic for a while",
            1.0 / more,
            lambda s: Burst(at=at * s, duration=lasting * s, factor=more),
        ),
    ]
    return source.choice(kinds) if source.random() < 0.5 else None


def held_out_tables(jobs: int, only: str = "") -> Iterator[str]:
    """Lines of Markdown: each fleet as it is done, then all of them together."""
    columns = ("fleet", "p99 of JSQ, ms", *NAMES, "errors %, and the least of the others")
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    rows: list[list[float]] = []
    for seed in SEEDS:
        fleet = draw(seed)
        if only not in fleet.words:
            continue
        report = run(fleet.scenario, policies=(SUBJECT, *OTHERS), jobs=jobs)
        rows.append(ratios(report))
        yield fleet_line(fleet, report, rows[-1])
    yield from summary(rows)


def ratios(report: Report) -> list[float]:
    """p99 over JSQ's, in the order of NAMES."""
    names = [contender_name(SUBJECT), "sed", *(contender_name(each) for each in OTHERS)]
    return [report.row(name).p99_to_jsq for name in names]


def fleet_line(fleet: HeldOut, report: Report, row: Sequence[float]) -> str:
    best = min(row[:1] + row[2:])  # type: ignore[operator]
    cells = [f"**{each:.2f}**" if each == best and place != 1 else f"{each:.2f}" for place, each in enumerate(row)]
    own = report.row(contender_name(SUBJECT)).error_percent
    errors = min(report.row(contender_name(each)).error_percent for each in OTHERS)
    shown = f"{own:.2g}, {errors:.2g}" if own or errors else ""
    base = f"{1e3 * report.row('jsq').p99:.3g}"
    return f"| {' | '.join((fleet.words, base, *cells, shown))} |"


def summary(rows: Sequence[Sequence[float]]) -> Iterator[str]:
    yield "\n| | " + " | ".join(NAMES) + " |"
    yield "|---" * (len(NAMES) + 1) + "|"
    columns = list(zip(*rows, strict=True))
    best = [min(row[:1] + row[2:]) for row in map(tuple, rows)]
    yield summary_line("p99 / JSQ, geometric mean", (statistics.geometric_mean(each) for each in columns))
    yield summary_line("median", (statistics.median(each) for each in columns))
    yield summary_line("worst", (max(each) for each in columns))
    behind = [[own / least for own, least in zip(column, best, strict=True)] for column in columns]
    yield summary_line("worst, over the best policy's", (max(each) for each in behind))
    as_good = (sum(each <= AS_GOOD for each in column) for column in behind)
    yield summary_line(f"of {len(rows)} fleets as good as the best policy, or within 5 %", as_good)


def summary_line(words: str, values: Iterable[float]) -> str:
    return f"| {words} | {' | '.join(f'{each:.3g}' for each in values)} |"
