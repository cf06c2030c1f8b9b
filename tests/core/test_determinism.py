"""With a seed a cluster repeats itself, pick for pick; without one it does not."""

from __future__ import annotations

import pytest

from lbcore import Cluster
from tests.core.fleets import POLICIES, address, fleet


def history(policy: str, seed: int) -> list[str]:
    """The endpoints of a mixed sequence of calls, over an update."""
    cluster = Cluster("history", fleet(13, (1, 2)), policy=POLICIES[policy], seed=seed)
    order: list[str] = []
    for members in (fleet(13, (1, 2)), fleet(9), fleet(20, (3, 1))):
        cluster.update(members)
        leases = [cluster.acquire() for _ in range(40)]
        order += [lease.endpoint.address for lease in leases]
        order += [cluster.pick().address for _ in range(40)]
        order += [cluster.endpoints[i].address for i in cluster.pick_many(40)]
    return order


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_history(policy: str) -> None:
    assert history(policy, 17) == history(policy, 17)


@pytest.mark.parametrize("policy", POLICIES)
def test_another_seed_gives_another_history(policy: str) -> None:
    assert history(policy, 17) != history(policy, 18)


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_any_64_bit_number_is_a_seed(seed: int) -> None:
    assert Cluster("seed", fleet(3), seed=seed).pick().address in {address(i) for i in range(3)}


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1"], ids=repr)
def test_anything_else_is_refused_as_a_seed(seed: object) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError), match="seed"):
        Cluster("seed", fleet(3), seed=seed)  # type: ignore[arg-type]
