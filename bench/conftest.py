"""The fixture `versus` and the table that ends a run: what each subject costs beside its floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.loop import ROUNDS, Comparison, Loop, compare


@dataclass(frozen=True)
class Row:
    """A line of the table. `goal` is the highest ratio aimed for, `limit` the longest time in seconds, if any."""

    subject: str
    floor: str
    goal: float | None
    limit: float | None
    measured: Comparison

    def cells(self) -> tuple[str, ...]:
        low, median, high = self.measured.spread
        aim = "" if self.goal is None else f"<= {self.goal:.3g}"
        met = self.goal is None or self.measured.ratio <= self.goal
        if self.limit is not None:
            aim = f"<= {_time(self.limit)}"
            met = self.measured.subject.best <= self.limit
        return (
            self.subject,
            _time(self.measured.subject.best),
            self.floor,
            _time(self.measured.floor.best),
            f"{self.measured.ratio:.2f}",
            f"{median:.2f} [{low:.2f} to {high:.2f}]",
            aim,
            "" if not aim else "met" if met else "MISSED",
        )


HEADINGS = ("subject", "best", "floor", "best", "ratio", "median [p10 to p90]", "goal", "")
ROWS: list[Row] = []

Versus = Callable[..., Comparison]


@pytest.fixture
def versus(benchmark: BenchmarkFixture) -> Versus:
    """`versus(name, subject, floor_name, floor, goal=..., rounds=...)` compares two loops and keeps the row."""

    def run(
        name: str,
        subject: Loop,
        floor_name: str,
        floor: Loop,
        *,
        goal: float | None = None,
        limit: float | None = None,
        rounds: int = ROUNDS,
    ) -> Comparison:
        measured = compare(benchmark, subject, floor, rounds)
        low, median, high = measured.spread
        benchmark.extra_info.update(
            subject=name,
            subject_seconds=measured.subject.best,
            floor=floor_name,
            floor_seconds=measured.floor.best,
            ratio=measured.ratio,
            ratio_p10=low,
            ratio_median=median,
            ratio_p90=high,
            goal=goal,
            limit=limit,
        )
        ROWS.append(Row(name, floor_name, goal, limit, measured))
        return measured

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROWS:
        return
    table = [HEADINGS, *(row.cells() for row in ROWS)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    terminalreporter.section("cost beside the floor, in one process; best = fastest round, per operation")
    for line in table:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if abs(seconds) >= size or unit == "ns":
            return f"{seconds / size:.4g} {unit}"
    raise AssertionError
