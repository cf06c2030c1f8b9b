"""A clock that goes on only when it is told to: read natively by a cluster, callable like any other."""

from __future__ import annotations

import pytest

from lbcore import Cluster, Endpoint, RoundRobin, SlowStart, VirtualClock


def test_it_stands_still_until_it_is_advanced() -> None:
    clock = VirtualClock(7)
    assert (clock(), clock()) == (7, 7)
    clock.advance(0.25)
    assert clock() == 250_000_007


def test_it_can_be_set() -> None:
    clock = VirtualClock()
    clock.now = 12
    assert clock() == 12


@pytest.mark.parametrize("now", ["1", None])
def test_its_time_is_whole_nanoseconds(now: object) -> None:
    with pytest.raises(TypeError):
        VirtualClock(now)  # type: ignore[arg-type]


def test_a_cluster_follows_it() -> None:
    clock = VirtualClock()
    policy = RoundRobin(slow_start=SlowStart(slow_start_window=10.0))
    cluster = Cluster("web", [Endpoint("10.0.0.1:80")], policy=policy, seed=1, clock=clock)
    clock.advance(60.0)
    cluster.update([Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:80")])

    def share() -> int:
        return sum(cluster.pick().address == "10.0.0.2:80" for _ in range(100))

    young = share()
    clock.advance(10.0)
    assert young < 20
    assert share() == 50
