"""Subsets: views of a cluster by endpoint metadata, with Envoy's rules for what stands in where none matches."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from lbcore import (
    Cluster,
    Endpoint,
    Health,
    InvalidSetting,
    LocalityWeighted,
    NoEndpointAvailable,
    Subsets,
    SubsetSelector,
)
from lbcore.subset import Fallback
from tests.core.fleets import POLICIES, address
from tests.core.observed import active_requests

FLEET: list[dict[str, Any]] = [
    {"stage": "prod", "version": 1, "canary": False},
    {"stage": "prod", "version": 2, "canary": False},
    {"stage": "prod", "version": 2, "canary": True},
    {"stage": "dev", "version": 2},
    {"zones": ["a", "b"]},
    {},
]
EVERYBODY = set(range(len(FLEET)))


def members() -> list[Endpoint]:
    return [Endpoint(address(i), metadata=metadata) for i, metadata in enumerate(FLEET)]


def cluster_of(*selectors: SubsetSelector, policy: str = "round_robin", **settings: Any) -> Cluster:
    return Cluster("web", members(), policy=POLICIES[policy], subsets=Subsets(selectors=selectors, **settings))


def serving(cluster: Cluster, criteria: Mapping[str, Any]) -> set[int]:
    view = cluster.subset(criteria)
    return {int(each.address.split(":")[0].rsplit(".", 1)[1]) for each in view.endpoints}


STAGE = SubsetSelector(keys=("stage",))
BOTH = SubsetSelector(keys=("version", "stage"))


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({"stage": "prod"}, {0, 1, 2}),
        ({"stage": "dev"}, {3}),
        ({"stage": "prod", "version": 2}, {1, 2}),
        ({"version": 2, "stage": "prod"}, {1, 2}),
        ({"stage": "prod", "version": 2.0}, {1, 2}),
    ],
)
def test_a_subset_is_those_whose_metadata_agree(criteria: dict[str, Any], expected: set[int]) -> None:
    assert serving(cluster_of(STAGE, BOTH), criteria) == expected


@pytest.mark.parametrize("value", ["1", True, None], ids=repr)
def test_values_of_another_kind_do_not_agree(value: object) -> None:
    assert serving(cluster_of(BOTH), {"stage": "prod", "version": value}) == set()


def test_criteria_whose_keys_no_selector_has_fall_back() -> None:
    assert serving(cluster_of(STAGE), {"version": 2}) == set()
    assert serving(cluster_of(STAGE, fallback_policy="any_endpoint"), {"version": 2}) == EVERYBODY


@pytest.mark.parametrize(
    ("fallback", "expected"),
    [("no_fallback", set()), ("any_endpoint", EVERYBODY), ("default_subset", {3}), ("not_defined", {3})],
)
def test_a_selector_says_what_stands_in_for_a_subset_of_nobody(fallback: Fallback, expected: set[int]) -> None:
    selector = SubsetSelector(keys=("stage",), fallback_policy=fallback)
    cluster = cluster_of(selector, fallback_policy="default_subset", default_subset={"stage": "dev"})
    assert serving(cluster, {"stage": "test"}) == expected


def test_a_default_subset_of_nothing_is_everybody() -> None:
    assert serving(cluster_of(STAGE, fallback_policy="default_subset"), {"stage": "test"}) == EVERYBODY


def test_keys_subset_looks_again_with_fewer_keys() -> None:
    narrow = SubsetSelector(keys=("stage", "version"), fallback_policy="keys_subset", fallback_keys_subset=("stage",))
    assert serving(cluster_of(narrow, STAGE), {"stage": "dev", "version": 9}) == {3}


def test_a_list_matches_each_of_its_items_only_where_asked() -> None:
    zones = SubsetSelector(keys=("zones",))
    assert serving(cluster_of(zones, list_as_any=True), {"zones": "b"}) == {4}
    assert serving(cluster_of(zones), {"zones": "b"}) == set()
    assert serving(cluster_of(zones), {"zones": ["a", "b"]}) == {4}


@pytest.mark.parametrize("policy", POLICIES)
def test_picks_from_a_subset_are_of_the_subset(policy: str) -> None:
    view = cluster_of(STAGE, policy=policy).subset({"stage": "prod"})
    picked = {view.pick(key).address for key in range(0, 2**64, 2**56)}
    assert picked == {address(i) for i in range(3)}
    assert {view.endpoints[i].address for i in view.pick_many(list(range(0, 2**64, 2**56)))} == picked


@pytest.mark.parametrize("policy", ["ring_hash", "maglev", "rendezvous"])
def test_a_subset_places_keys_as_a_cluster_of_its_members_does(policy: str) -> None:
    view = cluster_of(STAGE, policy=policy).subset({"stage": "prod"})
    alone = Cluster("alone", members()[:3], policy=POLICIES[policy])
    keys = list(range(0, 2**64, 2**56))
    assert view.pick_many(keys).tolist() == alone.pick_many(keys).tolist()


def test_requests_through_a_subset_count_in_the_cluster_and_in_other_subsets() -> None:
    cluster = cluster_of(STAGE, BOTH, policy="least_request_full_scan")
    leases = [cluster.subset({"stage": "prod", "version": 2}).acquire() for _ in range(4)]
    assert active_requests(cluster) == {address(i): 2 if i in (1, 2) else 0 for i in EVERYBODY}
    assert cluster.subset({"stage": "prod"}).pick().address == address(0)
    for lease in leases:
        lease.done()
    assert set(active_requests(cluster).values()) == {0}


def test_a_subset_follows_updates_of_its_cluster() -> None:
    cluster = cluster_of(STAGE)
    view = cluster.subset({"stage": "dev"})
    cluster.update([*members(), Endpoint(address(9), metadata={"stage": "dev"})])
    assert {view.pick().address for _ in range(4)} == {address(3), address(9)}


def test_a_subset_follows_the_health_of_its_cluster() -> None:
    cluster = cluster_of(STAGE)
    view = cluster.subset({"stage": "prod"})
    cluster.set_health(address(1), False)
    assert {view.pick().address for _ in range(6)} == {address(0), address(2)}


def test_panic_is_judged_within_the_subset() -> None:
    members_of_stage = [
        Endpoint(address(i), metadata={"stage": "prod" if i < 3 else "dev"}, health=health)
        for i, health in enumerate([Health.HEALTHY, Health.UNHEALTHY, Health.UNHEALTHY, *[Health.HEALTHY] * 9])
    ]
    cluster = Cluster("web", members_of_stage, subsets=Subsets(selectors=(STAGE,)))
    assert len({cluster.subset({"stage": "prod"}).pick().address for _ in range(30)}) == 3


def test_a_subset_that_empties_raises_and_recovers() -> None:
    cluster = cluster_of(STAGE)
    view = cluster.subset({"stage": "dev"})
    cluster.update(members()[:3])
    with pytest.raises(NoEndpointAvailable):
        view.pick()
    cluster.update(members())
    assert view.pick().address == address(3)


def test_a_fallback_follows_updates_of_its_cluster() -> None:
    cluster = cluster_of(STAGE, fallback_policy="any_endpoint")
    view = cluster.subset({"stage": "test"})
    assert view.pick() in cluster.endpoints
    cluster.update([Endpoint(address(9))])
    assert view.pick().address == address(9)


def test_a_fallback_becomes_the_subset_once_there_is_one() -> None:
    cluster = cluster_of(STAGE, fallback_policy="any_endpoint")
    view = cluster.subset({"stage": "test"})
    view.pick()
    cluster.update([*members(), Endpoint(address(9), metadata={"stage": "test"})])
    assert {view.pick().address for _ in range(10)} == {address(9)}


def test_criteria_that_match_nobody_are_not_kept() -> None:
    cluster = cluster_of(STAGE)
    cluster.subset({"stage": "warm"})
    gc.collect()
    before = sys.getallocatedblocks()
    for number in range(2_000):
        cluster.subset({"stage": f"unheard of {number}"})
    gc.collect()
    assert sys.getallocatedblocks() - before < 1_000


def test_the_same_criteria_give_the_same_view() -> None:
    cluster = cluster_of(BOTH)
    assert cluster.subset({"stage": "prod", "version": 2}) is cluster.subset({"version": 2, "stage": "prod"})


def test_a_thousand_subsets_share_the_endpoints() -> None:
    fleet = [Endpoint(address(i), metadata={"shard": i % 1000}) for i in range(3000)]
    cluster = Cluster("web", fleet, subsets=Subsets(selectors=(SubsetSelector(keys=("shard",)),)))
    views = [cluster.subset({"shard": shard}) for shard in range(1000)]
    assert all(view.pick() in fleet[shard::1000] for shard, view in enumerate(views))
    assert all(view.endpoints[0] is fleet[shard] for shard, view in enumerate(views))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SubsetSelector(keys=()), "keys"),
        (lambda: SubsetSelector(keys=("a",), fallback_policy="keys_subset"), "fallback_keys_subset"),
        (lambda: SubsetSelector(keys=("a", "b"), fallback_keys_subset=("a",)), "fallback_keys_subset"),
        (
            lambda: SubsetSelector(keys=("a",), fallback_policy="keys_subset", fallback_keys_subset=("a",)),
            "fallback_keys_subset",
        ),
        (
            lambda: SubsetSelector(keys=("a", "b"), fallback_policy="keys_subset", fallback_keys_subset=("c",)),
            "fallback_keys_subset",
        ),
        (lambda: SubsetSelector(keys=("a",), fallback_policy="whoever"), "fallback_policy"),  # type: ignore[arg-type]
        (lambda: Subsets(fallback_policy="keys_subset"), "fallback_policy"),  # type: ignore[arg-type]
    ],
)
def test_contradictory_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        make()


@pytest.mark.parametrize("criteria", [None, 5, ["stage"], {5: 1}, {"stage": object()}], ids=repr)
def test_criteria_that_are_no_metadata_are_refused(criteria: Any) -> None:
    with pytest.raises((InvalidSetting, TypeError)):
        cluster_of(STAGE).subset(criteria)


def test_of_redundant_keys_the_selector_with_most_serves() -> None:
    cluster = cluster_of(STAGE, BOTH, allow_redundant_keys=True)
    assert serving(cluster, {"stage": "prod", "version": 2, "canary": True}) == {1, 2}
    assert serving(cluster, {"stage": "dev", "canary": True}) == {3}
    assert serving(cluster_of(STAGE), {"stage": "dev", "canary": True}) == set()
    first = cluster.subset({"stage": "dev", "canary": True})
    assert cluster.subset({"stage": "dev", "canary": False}) is first


def test_alternatives_are_tried_in_order() -> None:
    cluster = cluster_of(STAGE, BOTH, metadata_fallback_policy="fallback_list")
    alternatives = [{"stage": "test"}, {"stage": "dev"}, {"stage": "prod"}]
    assert serving(cluster, {"fallback_list": alternatives}) == {3}
    assert serving(cluster, {"stage": "prod", "fallback_list": [{"version": 9}, {"version": 1}]}) == {0}
    assert serving(cluster, {"stage": "prod", "fallback_list": []}) == {0, 1, 2}
    assert serving(cluster_of(STAGE), {"fallback_list": alternatives}) == set()


def test_an_alternative_of_nobody_usable_is_passed_over_unless_it_panics() -> None:
    members_of_stage = [
        Endpoint(address(0), metadata={"stage": "dev"}, health=Health.UNHEALTHY),
        Endpoint(address(1), metadata={"stage": "prod"}),
    ]
    subsets = Subsets(selectors=(STAGE,), metadata_fallback_policy="fallback_list")
    criteria = {"fallback_list": [{"stage": "dev"}, {"stage": "prod"}]}
    for threshold, chosen in ((0.0, 1), (50.0, 0)):
        cluster = Cluster("web", members_of_stage, subsets=subsets, panic_threshold=threshold)
        assert cluster.subset(criteria).pick() == members_of_stage[chosen]


def test_any_endpoint_stands_in_for_a_default_subset_of_nobody_only_where_asked() -> None:
    nobody: dict[str, Any] = {"fallback_policy": "default_subset", "default_subset": {"stage": "none"}}
    assert serving(cluster_of(STAGE, **nobody), {"stage": "test"}) == set()
    assert serving(cluster_of(STAGE, panic_mode_any=True, **nobody), {"stage": "test"}) == EVERYBODY


def test_a_subset_may_be_its_first_endpoint_alone() -> None:
    assert serving(cluster_of(SubsetSelector(keys=["stage"], single_host_per_subset=True)), {"stage": "prod"}) == {0}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"locality_weight_aware": True}, {"eu": 0.75, "us": 0.25}),
        # Half of eu's endpoints are in the subset, and all of us': 3 becomes 2, 1 stays 1.
        ({"locality_weight_aware": True, "scale_locality_weight": True}, {"eu": 2 / 3, "us": 1 / 3}),
    ],
)
def test_locality_weights_count_in_a_subset_where_asked(
    settings: dict[str, bool], expected: dict[str, float] | None
) -> None:
    endpoints = [
        Endpoint(address(i), locality="us" if i == 4 else "eu", metadata={"stage": "dev" if i < 2 else "prod"})
        for i in range(5)
    ]
    cluster = Cluster("web", locality_policy=LocalityWeighted(), subsets=Subsets(selectors=(STAGE,), **settings))
    cluster.update(endpoints, locality_weights={"eu": 3, "us": 1})
    shares = cluster.subset({"stage": "prod"}).explain().locality_shares
    assert (shares and {str(place): share for place, share in shares.items()}) == (expected and pytest.approx(expected))


def test_contradictions_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="expected each set of keys once"):
        Subsets(selectors=(BOTH, SubsetSelector(keys=("stage", "version"))))
    with pytest.raises(InvalidSetting, match="locality_weight_aware only"):
        Subsets(scale_locality_weight=True)
    with pytest.raises(InvalidSetting, match="one key only"):
        SubsetSelector(keys=("a", "b"), single_host_per_subset=True)
    with pytest.raises(InvalidSetting, match=r"default_subset\.a"):
        Subsets(default_subset={"a": {1, 2}})
