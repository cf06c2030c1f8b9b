"""`lbcore simulate`: policies on a simulated fleet."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lbcore.cli.options import Commands, add_json, count

__all__ = ["add_simulate"]


def add_simulate(commands: Commands) -> None:
    simulate = commands.add_parser(
        "simulate", help="compare policies on a simulated fleet", description=_simulate.__doc__
    )
    simulate.add_argument("scenario", metavar="SCENARIO.yaml", type=Path)
    simulate.add_argument(
        "--policy",
        metavar="P",
        dest="policies",
        action="append",
        help="instead of the scenario's: a name, or {name: {field: value}}; may be given again",
    )
    simulate.add_argument("--seeds", metavar="N", type=count, default=1, help="show medians over N seeds (default 1)")
    simulate.add_argument(
        "--jobs", metavar="N", type=count, default=1, help="processes that share the work (default 1)"
    )
    simulate.add_argument("--requests", metavar="N", type=_count_of_requests, help="instead of the scenario's")
    simulate.add_argument("--plot", metavar="OUT.png", type=Path, help="draw it as well; needs lbcore[plot]")
    simulate.set_defaults(run=_simulate)
    add_json(simulate)


def _count_of_requests(text: str) -> int:
    return count(text, 100_000_000)


def _simulate(arguments: argparse.Namespace) -> int:
    """Runs a fleet through lbcore's own policies under a virtual clock, and shows latencies, errors and use of the
    servers beside what one would reach who knows all: JSQ joins the shortest queue, SED knows the speeds as well."""
    from lbcore.simulation import run
    from lbcore.simulation.progress import ProgressBar
    from lbcore.simulation.scenario_file import load_scenario, parse_policy

    if arguments.plot is not None:
        from lbcore.simulation.plot import draw  # now, because it may be missing

    scenario = load_scenario(arguments.scenario)
    if arguments.requests is not None:
        scenario = scenario.with_requests(arguments.requests)
    policies = [parse_policy(each) for each in arguments.policies] if arguments.policies else None
    with ProgressBar() as progress:
        report = run(scenario, policies=policies, seeds=arguments.seeds, jobs=arguments.jobs, progress=progress)
    if arguments.plot is not None:
        draw(report, arguments.plot, arguments.scenario.stem)
    print(json.dumps(report.as_json()) if arguments.json else report)
    return 0
