"""Clusters with outlier detection, on a clock of the test's own, and requests that end as the test says."""

from __future__ import annotations

from collections.abc import Iterable

from lbcore import Cluster, Endpoint, Lease, OutlierDetection, OutlierDetectionStats, RoundRobin, VirtualClock
from lbcore.policy import Policy
from tests.core.fleets import address, fleet

# Every ejection of a test is meant, and none is held back by the number of endpoints.
EAGER = {"max_ejection_percent": 100}


class Watched:
    """A cluster under outlier detection and its clock; endpoints go by their numbers."""

    def __init__(
        self,
        endpoints: int | Iterable[Endpoint] = 10,
        *,
        policy: Policy | None = None,
        seed: int = 1,
        panic_threshold: float = 0.0,
        **detection: object,
    ) -> None:
        self.clock = VirtualClock()
        self.start = self.clock.now
        self.cluster = Cluster(
            "watched",
            fleet(endpoints) if isinstance(endpoints, int) else endpoints,
            policy=policy or RoundRobin(),
            outlier_detection=OutlierDetection(**{**EAGER, **detection}),  # type: ignore[arg-type]
            panic_threshold=panic_threshold,
            seed=seed,
            clock=self.clock,
        )

    def begin(self, number: int, times: int = 1) -> list[Lease]:
        """That many requests to one endpoint, in flight."""
        others = [each for each in self.cluster.endpoints if each.address != address(number)]
        return [self.cluster.acquire(exclude=others) for _ in range(times)]

    def end(self, number: int, times: int = 1, *, ok: bool = True, status: int | str | None = None) -> None:
        """Begins and ends that many requests to one endpoint."""
        for lease in self.begin(number, times):
            lease.done(ok, status=status)

    def fail(self, number: int, times: int = 1) -> None:
        self.end(number, times, status=500)

    def ejected(self) -> set[int]:
        return {number for number, each in enumerate(self.cluster.stats().endpoints) if each.ejected}

    def picked(self) -> set[int]:
        """Numbers of the endpoints that three hundred picks give."""
        numbers = {each.address: number for number, each in enumerate(self.cluster.endpoints)}
        return {numbers[self.cluster.pick(key).address] for key in range(0, 2**64, 2**64 // 300)}

    def tick(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.cluster.tick()


def counts(watched: Watched) -> OutlierDetectionStats:
    """What its outlier detection has counted."""
    found = watched.cluster.stats().outlier_detection
    assert found is not None
    return found
