"""Endpoints and policies for the tests of the core."""

from __future__ import annotations

from collections.abc import Sequence

from lbcore import (
    Adaptive,
    Endpoint,
    Jump,
    LeastRequest,
    Maglev,
    PeakEwma,
    Prequal,
    Random,
    Rendezvous,
    RingHash,
    RoundRobin,
)
from lbcore.policy import Policy

FULL_SCAN = LeastRequest(selection_method="full_scan")
POLICIES: dict[str, Policy] = {
    "round_robin": RoundRobin(),
    "random": Random(),
    "least_request": LeastRequest(),
    "least_request_full_scan": FULL_SCAN,
    "peak_ewma": PeakEwma(),
    "peak_ewma_full_scan": PeakEwma(selection_method="full_scan"),
    "adaptive": Adaptive(),
    "prequal": Prequal(),
    "ring_hash": RingHash(),
    "maglev": Maglev(table_size=1021),
    "rendezvous": Rendezvous(),
    "jump": Jump(),
}
HASHING = ("ring_hash", "maglev", "rendezvous", "jump")
BY_LOAD = (
    "least_request",
    "least_request_full_scan",
    "peak_ewma",
    "peak_ewma_full_scan",
    "prequal",
)  # a pick is no share of a weight
NOT_HASHING = tuple(name for name in POLICIES if name not in HASHING)


def address(number: int) -> str:
    """A distinct IPv4 address for each number up to 16 millions."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:8080"


def fleet(count: int, weights: Sequence[int] = (1,)) -> tuple[Endpoint, ...]:
    """`count` endpoints, whose weights go round the ones given."""
    return tuple(Endpoint(address(i), weight=weights[i % len(weights)]) for i in range(count))
