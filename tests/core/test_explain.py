"""`explain` says why a pick goes where it goes, without changing where the next one goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, Health, hash64
from tests.core.fleets import HASHING, NOT_HASHING, POLICIES, fleet
from tests.core.layouts import in_states, spread_over_health
from tests.core.random_layouts import layout


@pytest.mark.parametrize("policy", POLICIES)
@given(number=st.integers(0, 500), key=st.one_of(st.none(), st.text(max_size=8), st.integers(0, 2**64 - 1)))
def test_the_winner_is_what_the_next_pick_gives(policy: str, number: int, key: str | int | None) -> None:
    cluster = Cluster("explain", layout(number), policy=POLICIES[policy], seed=number)
    assert cluster.explain(key).winner == cluster.pick(key)


@pytest.mark.parametrize("policy", POLICIES)
def test_explaining_does_not_change_the_picks_that_follow(policy: str) -> None:
    asked, quiet = (Cluster("explain", fleet(7, (1, 2)), policy=POLICIES[policy], seed=4) for _ in range(2))
    picks = []
    for _ in range(50):
        asked.explain()
        picks.append(asked.pick())
    assert picks == [quiet.pick() for _ in range(50)]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("number", range(20))
def test_the_winner_is_among_the_candidates(policy: str, number: int) -> None:
    explanation = Cluster("explain", layout(number), policy=POLICIES[policy], seed=1).explain("key")
    assert explanation.winner in [candidate.endpoint for candidate in explanation.candidates]


@pytest.mark.parametrize("policy", HASHING)
@pytest.mark.parametrize("number", range(20))
def test_place_and_priority_follow_from_the_loads_and_the_hash(policy: str, number: int) -> None:
    explanation = Cluster("explain", layout(number), policy=POLICIES[policy]).explain("key")
    assert explanation.hash == hash64("key")
    assert explanation.percent == hash64("key") % 100 + 1
    loads = [(level.healthy_load, priority, False) for priority, level in enumerate(explanation.priorities)]
    loads += [(level.degraded_load, priority, True) for priority, level in enumerate(explanation.priorities)]
    reached = 0
    for load, priority, degraded in loads:
        reached += load
        if explanation.percent <= reached:
            assert (explanation.priority, explanation.degraded) == (priority, degraded)
            return


@pytest.mark.parametrize("policy", HASHING)
def test_probes_begin_with_the_winner_and_then_follow_the_rank(policy: str) -> None:
    cluster = Cluster("explain", fleet(9), policy=POLICIES[policy])
    explanation = cluster.explain("key")
    distinct = list(dict.fromkeys(explanation.probes))
    assert distinct == cluster.rank("key", len(distinct))


@pytest.mark.parametrize("policy", NOT_HASHING)
def test_policies_that_do_not_hash_have_neither_hash_nor_probes(policy: str) -> None:
    explanation = Cluster("explain", fleet(3), policy=POLICIES[policy]).explain("key")
    assert (explanation.hash, explanation.probes) == (None, ())


def test_candidates_state_weight_and_requests_in_flight() -> None:
    cluster = Cluster("explain", fleet(2, (1, 3)), policy=POLICIES["maglev"])
    leases = [cluster.acquire("key") for _ in range(4)]
    candidates = {each.endpoint: (each.weight, each.active) for each in cluster.explain("key").candidates}
    busy = leases[0].endpoint
    assert candidates == {each: (each.weight, 4 if each is busy else 0) for each in cluster.endpoints}


def test_panic_is_stated_and_makes_all_endpoints_candidates() -> None:
    explanation = Cluster("explain", in_states(1, 0, 3)).explain()
    assert explanation.priorities[0].panic is True
    assert len(explanation.candidates) == 4


@pytest.mark.parametrize("policy", POLICIES)
def test_without_a_winner_there_is_a_reason(policy: str) -> None:
    states = [Health.UNHEALTHY, Health.DRAINING]
    cluster = Cluster("explain", spread_over_health(states), policy=POLICIES[policy], panic_threshold=0.0)
    explanation = cluster.explain("key")
    assert explanation.winner is None
    assert "1 DRAINING" in explanation.reason


@pytest.mark.parametrize("policy", POLICIES)
def test_an_empty_cluster_is_explained(policy: str) -> None:
    explanation = Cluster("explain", policy=POLICIES[policy]).explain("key")
    assert (explanation.winner, explanation.candidates, explanation.priorities) == (None, (), ())
    assert explanation.reason


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("number", range(5))
def test_its_text_names_cluster_policy_and_winner(policy: str, number: int) -> None:
    explanation = Cluster("web-7", layout(number), policy=POLICIES[policy], seed=1).explain("key")
    assert explanation.winner is not None
    text = str(explanation)
    assert all(part in text for part in ("web-7", explanation.policy, explanation.winner.address))
