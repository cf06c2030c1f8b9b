"""Subsets and localities as messages; that Envoy does with them what `Cluster` does is tested in tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from lbcore.directory import ServiceSnapshot
from lbcore.model import Locality
from lbcore.policy import Maglev, Policy, RoundRobin
from lbcore.routing import Listener, Route
from lbcore.settings import LocalityWeighted, ZoneAware
from lbcore.subset import Subsets, SubsetSelector
from lbcore.xds.clusters import same_clusters
from lbcore.xds.policies import envoy_policy, grpc_policy
from lbcore.xds.routes import listener_routes

ZONES = ZoneAware(local_service="frontend", routing_enabled=40, min_cluster_size=3, force_local_zone_min_size=2)


def listed(message: Any) -> list[Any]:
    as_json = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return [each["typed_extension_config"]["typed_config"] for each in as_json["policies"]]


def envoy(policy: Policy = RoundRobin(), **settings: Any) -> Any:  # noqa: B008  (immutable)
    (only,) = listed(envoy_policy(ServiceSnapshot(name="web", policy=policy, **settings)))
    return only


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"locality_policy": LocalityWeighted()}, {"locality_weighted_lb_config": {}}),
        ({"locality_weights": {Locality("eu"): 2}}, {"locality_weighted_lb_config": {}}),
        (
            {"locality_policy": ZONES, "locality_weights": {Locality("eu"): 2}},
            {
                "zone_aware_lb_config": {
                    "routing_enabled": {"value": 40.0},
                    "min_cluster_size": "3",
                    "force_local_zone": {"min_size": 2},
                }
            },
        ),
        (
            {
                "locality_policy": ZoneAware(locality_basis="healthy_hosts_weight"),
                "fail_traffic_on_panic": True,
            },
            {
                "zone_aware_lb_config": {
                    "routing_enabled": {"value": 100.0},
                    "min_cluster_size": "6",
                    "fail_traffic_on_panic": True,
                    "locality_basis": "HEALTHY_HOSTS_WEIGHT",
                }
            },
        ),
        ({"fail_traffic_on_panic": True}, {"zone_aware_lb_config": {"fail_traffic_on_panic": True}}),
    ],
)
def test_localities_go_with_the_policy(settings: dict[str, Any], expected: Any) -> None:
    assert envoy(**settings).get("locality_lb_config") == expected


def test_policies_that_hash_know_locality_weights_alone() -> None:
    assert "locality_weighted_lb_config" in envoy(Maglev(), locality_policy=LocalityWeighted())
    assert "locality_weighted_lb_config" not in envoy(Maglev(), locality_policy=ZONES)


def test_subsets_stand_over_the_policy_that_picks_within_one() -> None:
    subsets = Subsets(
        selectors=[
            SubsetSelector(keys=["b", "a"], fallback_policy="keys_subset", fallback_keys_subset=["a"]),
            SubsetSelector(keys=["c"], single_host_per_subset=True),
        ],
        fallback_policy="default_subset",
        default_subset={"a": 1, "nested": {"b": [None, True, "x"]}},
        list_as_any=True,
        allow_redundant_keys=True,
        locality_weight_aware=True,
        scale_locality_weight=True,
        panic_mode_any=True,
        metadata_fallback_policy="fallback_list",
    )
    made = envoy(Maglev(), subsets=subsets, locality_policy=LocalityWeighted())
    inner = made.pop("subset_lb_policy")["policies"][0]["typed_extension_config"]["typed_config"]
    assert inner == envoy(Maglev(), locality_policy=LocalityWeighted())
    assert made.pop("@type").endswith("envoy.extensions.load_balancing_policies.subset.v3.Subset")
    assert made == {
        "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": {"a": 1.0, "nested": {"b": [None, True, "x"]}},
        "subset_selectors": [
            {"keys": ["b", "a"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["a"]},
            {"keys": ["c"], "single_host_per_subset": True},
        ],
        "allow_redundant_keys": True,
        "locality_weight_aware": True,
        "scale_locality_weight": True,
        "panic_mode_any": True,
        "list_as_any": True,
        "metadata_fallback_policy": "FALLBACK_LIST",
    }


def test_grpc_hears_nothing_of_subsets_and_zones() -> None:
    plain = grpc_policy(ServiceSnapshot(name="web"))
    subsets = Subsets(selectors=[SubsetSelector(keys=["a"])])
    assert grpc_policy(ServiceSnapshot(name="web", subsets=subsets, locality_policy=ZONES)) == plain


@pytest.mark.parametrize(
    "settings",
    [
        {"subsets": Subsets()},
        {"locality_policy": ZONES},
        {"locality_policy": LocalityWeighted()},
        {"fail_traffic_on_panic": True},
    ],
)
def test_a_service_with_other_settings_has_another_cluster_and_version(settings: dict[str, Any]) -> None:
    plain, other = ServiceSnapshot(name="web"), ServiceSnapshot(name="web", **settings)
    assert not same_clusters(plain, other)
    assert plain.version != other.version


def test_callers_by_zone_are_part_of_the_version() -> None:
    versions = {
        ServiceSnapshot(name="web", locality_policy=ZoneAware(local_hosts=hosts)).version
        for hosts in ({}, {"eu": 1}, {"eu": 2}, {"us": 1})
    }
    assert len(versions) == 4


def test_a_route_names_its_subset() -> None:
    routes = (Route(prefix="/", service="web", subset={"version": 2}), Route(prefix="/", service="web"))
    resource = listener_routes(Listener(name="in", address="127.0.0.1:80", routes=routes))
    assert resource.framed.count(b"envoy.lb") == 1
