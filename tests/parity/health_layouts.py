"""Clusters of hosts in every state, spread over up to four priorities; generated from a fixed seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product

from lbcore.model import Endpoint, Health
from lbcore.policy import Policy
from tests.harness.bootstrap import StaticCluster
from tests.parity.envoy_picks import host_address

__all__ = ["MIXES", "health_layouts"]

# How a priority's hosts are drawn. Each name is one kind of trouble.
MIXES: dict[str, tuple[Health, ...]] = {
    "well": (Health.HEALTHY, Health.UNKNOWN),
    "degrading": (Health.HEALTHY, Health.DEGRADED),
    "degraded": (Health.DEGRADED,),
    "failing": (Health.HEALTHY, Health.UNHEALTHY),
    "down": (Health.UNHEALTHY, Health.TIMEOUT),
    "draining": (Health.HEALTHY, Health.DRAINING),
    "drained": (Health.DRAINING,),
    "troubled": (Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY, Health.DRAINING),
    "limping": (Health.DEGRADED, Health.UNHEALTHY),
}
PANIC_THRESHOLDS = (50.0, 0.0, 80.0)
LAYOUTS_FOR_EACH = 2  # of priorities, overprovisioning factor and panic threshold


def health_layouts(policy: Policy, *, fail_traffic_on_panic: bool = False) -> Iterator[StaticCluster]:
    """The same layouts for each policy."""
    choose = random.Random(5)
    settings = product((1, 2, 3, 4), (100, 140), PANIC_THRESHOLDS, range(LAYOUTS_FOR_EACH))
    for number, (priorities, factor, threshold, _) in enumerate(settings):
        mixes = [choose.choice(list(MIXES)) for _ in range(priorities)]
        kind = type(policy).__name__ + ("-fail" if fail_traffic_on_panic else "")
        yield StaticCluster(
            name=f"{kind}-{number}-{'-'.join(mixes)}-{factor}-{threshold:g}",
            endpoints=tuple(_endpoints(choose, mixes)),
            policy=policy,
            overprovisioning_factor=factor,
            panic_threshold=threshold,
            fail_traffic_on_panic=fail_traffic_on_panic,
        )


def _endpoints(choose: random.Random, mixes: list[str]) -> Iterator[Endpoint]:
    number = 0
    for priority, mix in enumerate(mixes):
        for _ in range(choose.randint(1, 8)):
            yield Endpoint(
                host_address(number),
                priority=priority,
                health=choose.choice(MIXES[mix]),
                metadata={"hash_key": f"host-{number}"},
            )
            number += 1
