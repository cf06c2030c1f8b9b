"""The goals of the default policy, and one of client-side weights: a scenario, a figure and the most that it may be.

Fleets are of 100 servers, 10 ms of service on average and 0.25 ms of network one way, unless a goal says otherwise.
`develop` marks scenarios that policies may be tuned on; the others are held out, and only reported on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from lbcore import Adaptive, ClientSideWeightedRoundRobin, LeastRequest, PeakEwma, Prequal, RoundRobin
from lbcore.policy import Policy
from lbcore.simulation import (
    Burst,
    Event,
    Exponential,
    FailFast,
    Fleet,
    Hyperexponential,
    Join,
    Lognormal,
    Measured,
    Outcome,
    Pareto,
    Pause,
    Report,
    Reports,
    Retries,
    Scenario,
    Servers,
    ServiceTime,
    SlowDown,
    Traffic,
)

__all__ = ["GOALS", "OTHERS", "Figure", "Goal", "by_seed"]

SUBJECT = Adaptive()
P2C = LeastRequest()
FULL_SCAN = LeastRequest(selection_method="full_scan")
PEAK = PeakEwma()
PEAK_SCAN = PeakEwma(selection_method="full_scan")
PREQUAL = Prequal()
WEIGHTS = ClientSideWeightedRoundRobin()
OTHERS: tuple[Policy, ...] = (P2C, FULL_SCAN, PEAK, PEAK_SCAN)

# (outcomes of one seed by contender's name, the subject's name) -> the figure
Figure = Callable[[dict[str, Outcome], str], float]


@dataclass(frozen=True)
class Goal:
    """`figure` of the subject in `scenario` shall be at most `most`."""

    name: str
    scenario: Scenario
    words: str
    figure: Figure
    most: float
    develop: bool = False
    others: tuple[Policy, ...] = (P2C,)
    subject: Policy = SUBJECT


def by_seed(report: Report) -> Iterable[dict[str, Outcome]]:
    """What figures are made of, of each seed."""
    for place in range(len(report.seeds)):
        yield {row.name: row.outcomes[place] for row in report.rows}


def over(baseline: str) -> Figure:
    """p99 over a baseline's."""
    return lambda outcomes, subject: outcomes[subject].p99 / outcomes[baseline].p99


def over_the_best(outcomes: dict[str, Outcome], subject: str) -> float:
    """p99 over the least of the other policies'."""
    rest = [each.p99 for name, each in outcomes.items() if name not in ("jsq", "sed", subject)]
    return outcomes[subject].p99 / min(rest)


def event_figure(name: str, unit: float = 1.0) -> Figure:
    """Of the first event; infinite where it never came to it."""

    def figure(outcomes: dict[str, Outcome], subject: str) -> float:
        value = getattr(outcomes[subject].events[0], name)
        return float("inf") if value is None else value / unit

    return figure


def first_second_to_fair(outcomes: dict[str, Outcome], subject: str) -> float:
    """Traffic to an event's servers in its first second, over their fair share."""
    event = outcomes[subject].events[0]
    return (event.share_first_second or 0.0) / event.fair_share


def growth(outcomes: dict[str, Outcome], subject: str) -> float:
    """p99 at the end over p99 in the middle."""
    return outcomes[subject].growth


EVEN = (Servers(count=100),)
TENTH_SLOW = (Servers(count=90), Servers(count=10, speed=0.2))
SPREAD = (Servers(count=50, speed=0.5), Servers(count=50, speed=1.5))
BIMODAL = Hyperexponential(mean=0.01, long_share=1.0, long_factor=20.0)


def fleet(
    load: float,
    servers: tuple[Servers, ...] = EVEN,
    clients: int = 1,
    service_time: ServiceTime = Exponential(mean=0.01),  # noqa: B008 - a frozen value
    events: tuple[Event, ...] = (),
    requests: int = 250_000,
    reports: bool = False,
    probes: int = 0,
    **fields: Any,
) -> Scenario:
    subset_size = fields.pop("subset_size", None)
    return Scenario(
        fleet=Fleet(servers=servers, clients=clients, subset_size=subset_size),
        traffic=Traffic(load=load, service_time=service_time, requests=requests, probes=probes),
        events=events,
        reports=Reports() if reports else None,
        **fields,
    )


def one_balancer_even() -> Iterator[Goal]:
    kinds: dict[str, ServiceTime] = {
        "exponential": Exponential(mean=0.01),
        "lognormal": Lognormal(mean=0.01, sigma=1.0),
        "bimodal": BIMODAL,
    }
    for workers in (1, 4):
        for kind, service_time in kinds.items():
            for load in (70.0, 90.0, 95.0):
                scenario = fleet(load, (Servers(count=100, workers=workers),), service_time=service_time)
                develop = workers == 1 and (kind, load) == ("exponential", 90.0)
                name = f"one balancer, even, {kind}, {load:g} %" + (", 4 workers" if workers > 1 else "")
                yield Goal(name, scenario, "p99 / JSQ", over("jsq"), 1.02, develop)


def one_balancer_uneven() -> Iterator[Goal]:
    slowed = SlowDown(servers=5, at=15.0, duration=20.0)
    for load in (70.0, 90.0):
        yield Goal(
            f"one balancer, a tenth 5x slower, {load:g} %", fleet(load, TENTH_SLOW), "p99 / SED", over("sed"), 1.05,
            load == 90.0,
        )  # fmt: skip
    for load in (70.0, 85.0):
        during = fleet(load, events=(slowed,), requests=500_000, measured=Measured(after=15.0, until=35.0))
        yield Goal(
            f"one balancer, 5 servers 10x slower for 20 s, {load:g} %", during, "p99 / SED", over("sed"), 1.05,
            load == 85.0,
        )  # fmt: skip
    for load in (70.0, 80.0, 90.0):
        yield Goal(f"one balancer, half 3x as fast, {load:g} %", fleet(load, SPREAD), "p99 / SED", over("sed"), 1.25)


def many_clients() -> Iterator[Goal]:
    jsq = over("jsq")
    twenty = fleet(90.0, clients=20)
    reports = replace(twenty, reports=Reports())
    slow = fleet(90.0, TENTH_SLOW, clients=20)
    told = (P2C, WEIGHTS)
    yield Goal("20 clients, reports, 90 %", reports, "p99 / JSQ", jsq, 1.5, develop=True, others=told)
    yield Goal("20 clients, reports, 70 %", fleet(70.0, clients=20, reports=True), "p99 / JSQ", jsq, 1.5)
    slow_reports = replace(slow, reports=Reports())
    yield Goal(
        "20 clients, reports, a tenth 5x slower, 90 %", slow_reports, "p99 / JSQ", jsq, 1.2, develop=True, others=told
    )
    yield Goal(
        "20 clients, reports, a tenth 5x slower, 70 %", fleet(70.0, TENTH_SLOW, 20, reports=True), "p99 / JSQ", jsq, 1.2
    )
    half = replace(twenty, reports=Reports(loss=50.0))
    yield Goal(
        "20 clients, half of the reports lost, 90 %", half, "p99 / best other", over_the_best, 1.0, others=OTHERS
    )
    subset = fleet(90.0, clients=20, subset_size=10)
    yield Goal("20 clients, subsets of 10, 90 %", subset, "p99 / JSQ", jsq, 1.55, develop=True)
    for name, scenario in (
        ("90 %", twenty),
        ("70 %", fleet(70.0, clients=20)),
        ("a tenth 5x slower, 90 %", slow),
        ("bimodal, 80 %", fleet(80.0, clients=20, service_time=BIMODAL)),
        ("half 3x as fast, 80 %", fleet(80.0, SPREAD, clients=20)),
        ("Pareto, 85 %", fleet(85.0, clients=20, service_time=Pareto(mean=0.01, alpha=2.2))),
    ):
        develop = scenario is twenty or scenario is slow
        yield Goal(f"20 clients, no reports, {name}", scenario, "p99 / best other", over_the_best, 1.0, develop, OTHERS)
    for name, servers in (("90 %", EVEN), ("a tenth 5x slower, 90 %", TENTH_SLOW)):
        hundred = fleet(90.0, servers, clients=100, reports=True, probes=3)
        yield Goal(f"100 clients, reports, {name}", hundred, "p99 / JSQ", jsq, 2.2, others=(P2C, PREQUAL))
        name = f"100 clients, reports, {name}, beside probes"
        yield Goal(name, hundred, "p99 / Prequal", over("prequal"), 1.0, others=(P2C, PREQUAL))


def weights_from_reports() -> Iterator[Goal]:
    """After the blackout of 10 s, and some more in which what piled up before is worked off."""
    scenario = fleet(45.0, SPREAD, 20, requests=200_000, reports=True, measured=Measured(after=20.0))
    yield Goal(
        "20 clients, client-side weights, half 3x as fast, 45 %",
        scenario,
        "busiest server / mean",
        lambda outcomes, subject: outcomes[subject].max_over_mean_utilization,
        1.15,
        others=(RoundRobin(),),
        subject=WEIGHTS,
    )


def what_goes_wrong() -> Iterator[Goal]:
    share = event_figure("share_during")
    failing = FailFast(servers=1)
    yield Goal(
        "one balancer, a fail-fast server, 70 %", fleet(70.0, events=(failing,)), "% of traffic", share, 0.1, True
    )
    for reports in (False, True):
        with_them = "reports" if reports else "no reports"
        scenario = fleet(70.0, clients=20, events=(failing,), reports=reports)
        yield Goal(f"20 clients, {with_them}, a fail-fast server, 70 %", scenario, "% of traffic", share, 0.1)
    slowed = SlowDown(servers=5, at=10.0, duration=10.0)
    recover = event_figure("time_to_recover")
    for clients, reports in ((1, False), (20, False), (20, True)):
        scenario = fleet(70.0, clients=clients, events=(slowed,), requests=400_000, reports=reports)
        name = f"{clients} client{'s' * (clients > 1)}{', reports' * reports}, recovery after 10x slower, 70 %"
        yield Goal(name, scenario, "s to 80 % of fair", recover, 30.0)
    join = Join(servers=5, at=15.0)
    for clients, reports in ((1, False), (20, False), (20, True)):
        scenario = fleet(80.0, clients=clients, events=(join,), requests=200_000, reports=reports)
        name = f"{clients} client{'s' * (clients > 1)}{', reports' * reports}, 5 cold hosts join, 80 %"
        yield Goal(name, scenario, "first second / fair", first_second_to_fair, 1.5)
    burst = fleet(60.0, clients=20, reports=True, events=(Burst(at=15.0, duration=2.0),), requests=300_000)
    yield Goal("20 clients, reports, twice the traffic for 2 s", burst, "p99 / best other", over_the_best, 1.0)
    pauses = Pause(servers=20, at=4.0, duration=0.1, every=2.0)
    paused = fleet(70.0, clients=20, reports=True, events=(pauses,))
    yield Goal(
        "20 clients, reports, a fifth pauses together", paused, "p99 / best other", over_the_best, 1.0, others=OTHERS
    )
    storm = fleet(
        65.0, clients=20, reports=True, events=(Burst(at=15.0, duration=3.0, factor=1.7),),
        retries=Retries(num_retries=2, per_try_timeout=0.1),
    )  # fmt: skip
    yield Goal("20 clients, reports, retry storm", storm, "growth of p99", growth, 1.5)


def sizes() -> Iterator[Goal]:
    three = (Servers(count=2), Servers(count=1, speed=0.5))
    yield Goal(
        "one balancer, 3 servers, one half as fast, 80 %",
        fleet(80.0, three, requests=200_000),
        "p99 / SED",
        over("sed"),
        1.25,
    )
    thousand = (Servers(count=500), Servers(count=300, speed=0.7), Servers(count=200, speed=1.3))
    yield Goal(
        "one balancer, 1000 servers of three speeds, 85 %",
        fleet(85.0, thousand, requests=600_000),
        "p99 / SED",
        over("sed"),
        1.25,
    )


GOALS: tuple[Goal, ...] = (
    *one_balancer_even(),
    *one_balancer_uneven(),
    *many_clients(),
    *weights_from_reports(),
    *what_goes_wrong(),
    *sizes(),
)
