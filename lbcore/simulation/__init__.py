"""Whole fleets under a virtual clock, through the core's own policies: `lbcore simulate` and its Python API.

Scenario files are read by `lbcore.simulation.scenario_file`, which needs yaml.

    >>> from lbcore import LeastRequest
    >>> from lbcore.simulation import Exponential, Fleet, Scenario, Servers, Traffic, run
    >>> scenario = Scenario(
    ...     fleet=Fleet(servers=(Servers(count=9), Servers(count=1, speed=0.2)), clients=2),
    ...     traffic=Traffic(load=70.0, service_time=Exponential(mean=0.01), requests=10_000),
    ...     policies=(LeastRequest(),),
    ... )
    >>> [row.name for row in run(scenario).rows]
    ['jsq', 'sed', 'least_request']
"""

from lbcore.simulation.events import Burst, Event, FailFast, Join, Leave, Pause, SlowDown
from lbcore.simulation.fleet import Fleet, Servers
from lbcore.simulation.outcome import EventOutcome, Outcome
from lbcore.simulation.report import Report, Row, run
from lbcore.simulation.run import Baseline, run_once
from lbcore.simulation.scenario import Scenario
from lbcore.simulation.service_time import (
    Bimodal,
    Deterministic,
    Exponential,
    Hyperexponential,
    Lognormal,
    Pareto,
    ServiceTime,
)
from lbcore.simulation.traffic import Measured, Reports, Retries, Traffic

__all__ = [
    "Baseline",
    "Bimodal",
    "Burst",
    "Deterministic",
    "Event",
    "EventOutcome",
    "Exponential",
    "FailFast",
    "Fleet",
    "Hyperexponential",
    "Join",
    "Leave",
    "Lognormal",
    "Measured",
    "Outcome",
    "Pareto",
    "Pause",
    "Report",
    "Reports",
    "Retries",
    "Row",
    "Scenario",
    "Servers",
    "ServiceTime",
    "SlowDown",
    "Traffic",
    "run",
    "run_once",
]
