"""Runs every goal over several seeds and prints Markdown: medians, spread, and whether the goal is met."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from dataclasses import replace

from bench.simulation.constants import constant_tables
from bench.simulation.goals import GOALS, Goal, by_seed
from bench.simulation.held_out import held_out_tables
from bench.simulation.sweeps import SWEEPS, sweep_table
from lbcore.simulation import Report, run
from lbcore.simulation.report import contender_name


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.simulation", description=__doc__)
    parser.add_argument("--only", default="", help="goals, sweeps or fleets whose name holds this text")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--sweep", action="store_true", help="instead: settings of the policies over a range")
    parser.add_argument("--held-out", action="store_true", help="instead: fleets drawn at random, once each")
    parser.add_argument(
        "--constants", action="store_true", help="instead: constants of the default policy, by building"
    )
    arguments = parser.parse_args()
    if arguments.held_out:
        for text in held_out_tables(arguments.jobs, arguments.only):
            print(text, flush=True)
        return 0
    if arguments.constants:
        for text in constant_tables(arguments.only):
            print(text, flush=True)
        return 0
    if arguments.sweep:
        for sweep in SWEEPS:
            if arguments.only in sweep.name:
                print(sweep_table(sweep, arguments.seeds, arguments.jobs), flush=True)
        return 0
    chosen = [goal for goal in GOALS if arguments.only in goal.name]
    print(f"Medians of {arguments.seeds} seeds, from {arguments.seed} on.\n")
    print(
        "| scenario | figure | goal | median | range | | others, p99 / JSQ |", "|---|---|---|---|---|---|---|", sep="\n"
    )
    missed = 0
    for goal in chosen:
        scenario = replace(goal.scenario, seed=arguments.seed)
        report = run(scenario, policies=(goal.subject, *goal.others), seeds=arguments.seeds, jobs=arguments.jobs)
        line, met = goal_line(goal, report)
        missed += not met
        print(line, flush=True)
    print(f"\n{len(chosen) - missed} of {len(chosen)} met.")
    return 0


def goal_line(goal: Goal, report: Report) -> tuple[str, bool]:
    """A line of the table, and whether the goal is met."""
    subject = contender_name(goal.subject)
    figures = [goal.figure(outcomes, subject) for outcomes in by_seed(report)]
    median = statistics.median(figures)
    met = not math.isnan(median) and round(median, 3) <= goal.most
    others = ", ".join(f"{row.name} {row.p99_to_jsq:.2f}" for row in report.rows[3:])
    cells = (
        goal.name + (" (develop)" if goal.develop else ""),
        goal.words,
        f"<= {goal.most:g}",
        f"{median:.3f}",
        f"{min(figures):.3f} to {max(figures):.3f}",
        "met" if met else "MISSED",
        others,
    )
    return f"| {' | '.join(cells)} |", met


if __name__ == "__main__":
    sys.exit(main())
