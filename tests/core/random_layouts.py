"""Fleets drawn at random from a number: endpoints over priorities, localities, states and weights."""

from __future__ import annotations

import random

from lbcore import Endpoint, Health, Locality
from tests.core.fleets import address

LOCALITIES = [Locality("eu", "a"), Locality("eu", "b"), Locality("us", "a")]
MOODS = [  # how likely HEALTHY, DEGRADED, UNHEALTHY, DRAINING are in a layout
    (1, 0, 0, 0),
    (8, 1, 1, 0),
    (5, 2, 3, 1),
    (2, 2, 5, 1),
    (1, 8, 3, 0),
    (0, 1, 3, 1),
]
STATES = [Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY, Health.DRAINING]


def layout(number: int, *, priorities: int = 4, weighted: bool = True, localities: bool = True) -> list[Endpoint]:
    """5 to 30 endpoints; each priority has a mood of its own."""
    draw = random.Random(number)
    levels = draw.randint(1, priorities)
    moods = [draw.choice(MOODS) for _ in range(levels)]
    endpoints = []
    for i in range(draw.randint(5, 30)):
        priority = draw.randrange(levels)
        endpoints.append(
            Endpoint(
                address(i),
                weight=draw.choice([1, 1, 2, 3, 10]) if weighted else 1,
                priority=priority,
                locality=draw.choice(LOCALITIES) if localities else "",
                health=draw.choices(STATES, moods[priority])[0],
            )
        )
    return endpoints


def counted(cluster_endpoints: tuple[Endpoint, ...], picked: list[int]) -> dict[str, int]:
    """Picks by address; those that failed are left out."""
    counts = {endpoint.address: 0 for endpoint in cluster_endpoints}
    for index in picked:
        if index >= 0:
            counts[cluster_endpoints[index].address] += 1
    return counts
