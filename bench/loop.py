"""One expression in a tight loop, timed without the cost of the loop itself, side by side with its floor.

Subject, floor and an empty loop run in turn, round by round, so that a slow spell of the machine falls on all three.
Each round gives one ratio; their quantiles are the spread. The ratio of the fastest rounds is the least disturbed.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

__all__ = ["Comparison", "Loop", "Rounds", "compare"]

ROUNDS = 300  # short and many: on a busy machine some run undisturbed
WARM_UP = 3  # rounds that fill the caches and let the interpreter specialise
CALLS = 10_000  # in a round: a tenth of a millisecond and more, far above the clock's resolution


class Loop:
    """`for key in keys: expression`, with the names in it as local variables, as hot code would have them.

    `keys` is a collection, or a number of rounds for an expression that uses no key. `calls` is how many operations one
    evaluation of the expression stands for.
    """

    def __init__(
        self, expression: str, names: Mapping[str, object], keys: Collection[object] | int = CALLS, calls: int = 1
    ) -> None:
        self.expression = expression
        self._keys = keys
        self.calls = (keys if isinstance(keys, int) else len(keys)) * calls
        source = f"def run(keys, {', '.join(names)}):\n    for key in keys:\n        {expression}\n"
        namespace: dict[str, Any] = {}
        exec(source, namespace)
        self._run: Callable[..., None] = namespace["run"]
        self._values = list(names.values())

    def run(self) -> None:
        keys = repeat(None, self._keys) if isinstance(self._keys, int) else self._keys
        self._run(keys, *self._values)

    def empty(self) -> Loop:
        """The same loop around nothing."""
        return Loop("pass", {}, self._keys)

    def seconds(self) -> float:
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start


@dataclass(frozen=True)
class Rounds:
    """Seconds per operation, one for each round; the cost of the loop is already taken off."""

    seconds: list[float]

    @property
    def best(self) -> float:
        return min(self.seconds)


@dataclass(frozen=True)
class Comparison:
    """A subject beside its floor over the same rounds."""

    subject: Rounds
    floor: Rounds

    @property
    def ratio(self) -> float:
        """Fastest round of the subject over the fastest of the floor."""
        return self.subject.best / self.floor.best

    @property
    def spread(self) -> tuple[float, float, float]:
        """The ratios of the single rounds: tenth percentile, median, ninetieth percentile."""
        ratios = [mine / least for mine, least in zip(self.subject.seconds, self.floor.seconds, strict=True)]
        deciles = statistics.quantiles(ratios, n=10)
        return deciles[0], statistics.median(ratios), deciles[-1]


def compare(benchmark: BenchmarkFixture, subject: Loop, floor: Loop, rounds: int = ROUNDS) -> Comparison:
    """Has pytest-benchmark time the subject, and before each of its rounds times the floor and the empty loops."""
    beside = (subject.empty(), floor, floor.empty())
    times: tuple[list[float], ...] = ([], [], [])

    def time_the_rest() -> None:
        for loop, series in zip(beside, times, strict=True):
            series.append(loop.seconds())

    collecting = gc.isenabled()
    gc.disable()
    try:
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            subject.run, setup=time_the_rest, rounds=rounds, warmup_rounds=WARM_UP
        )
    finally:
        if collecting:
            gc.enable()
    around_subject, floors, around_floor = (series[-rounds:] for series in times)
    assert benchmark.stats is not None
    subjects = list(benchmark.stats.stats.data)
    return Comparison(_net(subject, subjects, around_subject), _net(floor, floors, around_floor))


def _net(loop: Loop, full: list[float], empty: list[float]) -> Rounds:
    bare = min(empty)  # of all rounds: taking off each round's own would count a disturbed empty loop as speed
    return Rounds([(with_work - bare) / loop.calls for with_work in full])
