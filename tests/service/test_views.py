"""Subsets, zones, exclusions and explanations over gRPC: what an embedded cluster gives, and refusals that say why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from lbcore import Cluster, Endpoint, Explanation, LeastRequest, Locality, Maglev, RoundRobin, hash64
from lbcore.client import AsyncPickerClient, PickerClient
from lbcore.errors import InvalidSetting, NoEndpointAvailable
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.proto.picker_pb2_grpc import PickerStub
from lbcore.settings import ZoneAware
from lbcore.snapshot import ServiceSnapshot
from lbcore.subset import Subsets, SubsetSelector
from tests.harness.picker_server import PickerServer

StartPicker = Callable[..., PickerServer]

KEYS = [f"user-{number}" for number in range(40)]
VERSIONS = Subsets(selectors=[SubsetSelector(keys=["version"])], fallback_policy="default_subset")
MEMBERS = tuple(Endpoint(f"10.0.0.{n}:80", metadata={"version": 1 + n % 3, "name": f"n{n}"}) for n in range(1, 13))


def web(**settings: Any) -> ServiceSnapshot:
    return ServiceSnapshot(**{"name": "web", "endpoints": MEMBERS, "policy": Maglev(), **settings})


def test_picks_of_a_subset_are_those_of_an_embedded_one(start_picker: StartPicker) -> None:
    view = Cluster("web", MEMBERS, policy=Maglev(), subsets=VERSIONS).subset({"version": 2})
    with PickerClient(start_picker(web(subsets=VERSIONS)).address) as client:
        two = {"version": 2}
        assert [client.pick("web", key, subset=two) for key in KEYS] == [view.pick(key) for key in KEYS]
        assert client.rank("web", "k", 3, subset=two) == view.rank("k", 3)
        picks = client.pick_many("web", KEYS, subset=two)
        assert list(picks) == [view.pick(key) for key in KEYS]
        assert picks.endpoints == MEMBERS  # the table is the whole service's
        with client.acquire("web", "k", subset=two) as endpoint:
            assert endpoint == view.pick("k")
        assert client.explain("web", "k", subset=two).winner == view.pick("k")


def test_a_request_that_names_no_subset_falls_back_as_in_envoy(start_picker: StartPicker) -> None:
    nobody = Subsets(selectors=VERSIONS.selectors)
    services = web(subsets=VERSIONS), web(name="strict", subsets=nobody)
    with PickerClient(start_picker(*services).address) as client:
        assert client.pick("web", "k") in MEMBERS
        with pytest.raises(NoEndpointAvailable):
            client.pick("strict", "k")
        assert set(client.pick_many("strict", KEYS).indices) == {-1}


def test_streams_of_two_subsets_do_not_mix(start_picker: StartPicker) -> None:
    with PickerClient(start_picker(web(subsets=VERSIONS)).address) as client:
        for version in (1, 2, 3, 1):
            picks = client.pick_many("web", 50, subset={"version": version})
            assert {each.metadata["version"] for each in picks} == {version}


async def test_the_asyncio_client_takes_the_same_arguments(start_picker: StartPicker) -> None:
    view = Cluster("web", MEMBERS, policy=Maglev(), subsets=VERSIONS).subset({"version": 2})
    async with AsyncPickerClient(start_picker(web(subsets=VERSIONS)).address) as client:
        two, first = {"version": 2}, view.pick("k")
        assert await client.pick("web", "k", subset=two, exclude=first) == view.rank("k", 2)[1]
        assert await client.rank("web", "k", 2, subset=two, exclude=[first.address]) == view.rank("k", 3)[1:]
        assert list(await client.pick_many("web", KEYS, subset=two)) == [view.pick(key) for key in KEYS]
        async with client.acquire("web", "k", subset=two, exclude=first) as endpoint:
            assert endpoint == view.rank("k", 2)[1]
        assert (await client.explain("web", "k", subset=two)).winner == first


def test_excluded_endpoints_are_passed_over_in_the_keys_own_order(start_picker: StartPicker) -> None:
    ranked = Cluster("web", MEMBERS, policy=Maglev()).rank("k", 5)
    with PickerClient(start_picker(web()).address) as client:
        assert client.pick("web", "k", exclude=ranked[:2]) == ranked[2]
        assert client.rank("web", "k", 2, exclude=[each.address for each in ranked[:3]]) == ranked[3:]
        with client.acquire("web", "k", exclude=ranked[0]) as endpoint:
            assert endpoint == ranked[1]
        with pytest.raises(NoEndpointAvailable, match="excluded"):
            client.pick("web", "k", exclude=MEMBERS)


def in_zones(*counts: int) -> tuple[Endpoint, ...]:
    places = [f"eu/{zone}" for zone, count in zip("abc", counts, strict=False) for _ in range(count)]
    return tuple(Endpoint(f"10.1.0.{n}:80", locality=place) for n, place in enumerate(places, 1))


def zones_of(client: PickerClient, count: int = 200, **arguments: Any) -> Counter[str]:
    return Counter(str(each.locality) for each in client.pick_many("web", count, **arguments))


def test_a_request_is_routed_by_the_zone_that_it_comes_from(start_picker: StartPicker) -> None:
    zones = ZoneAware(local_hosts={"eu/a": 1, "eu/b": 1})
    service = ServiceSnapshot(name="web", endpoints=in_zones(4, 4), locality_policy=zones, local_locality="eu/a")
    with PickerClient(start_picker(service).address) as client:
        assert zones_of(client).keys() == {"eu/a"}
        assert zones_of(client, local_locality="eu/b").keys() == {"eu/b"}
        assert zones_of(client, local_locality="mars").keys() == {"eu/a", "eu/b"}  # no caller is there
        assert client.pick("web", local_locality=Locality("eu", "b")).locality == Locality("eu", "b")
        assert client.explain("web", local_locality="eu/b").locality_shares == {
            Locality("eu", "b"): 1.0,
            Locality("eu", "a"): 0.0,
        }


def test_the_callers_are_counted_in_another_service_and_followed(start_picker: StartPicker) -> None:
    service = ServiceSnapshot(
        name="web",
        endpoints=in_zones(3, 3),
        policy=LeastRequest(),
        locality_policy=ZoneAware(local_service="callers"),
        local_locality="eu/a",
    )
    server = start_picker(service, ServiceSnapshot(name="callers", endpoints=in_zones(1, 1)))
    with PickerClient(server.address) as client:
        lease = client.acquire("web")
        assert zones_of(client).keys() == {"eu/a"}
        server.publish(service, ServiceSnapshot(name="callers", endpoints=in_zones(3, 1)))
        counts = zones_of(client, 4000)
        assert 0.6 < counts["eu/a"] / 4000 < 0.73  # two thirds: 5000 of 7500
        server.publish(service)
        assert 0.4 < zones_of(client, 4000)["eu/a"] / 4000 < 0.6
        (status,) = client.endpoints("web")
        assert sum(each.active for each in status.endpoints) == 1  # the lease outlived both
        lease.done()


def test_locality_weights_that_are_not_said_are_one_as_clients_of_xds_are_told(start_picker: StartPicker) -> None:
    service = ServiceSnapshot(name="web", endpoints=in_zones(2, 2, 2), locality_weights={Locality("eu", "a"): 2})
    with PickerClient(start_picker(service).address) as client:
        assert zones_of(client, 400) == {"eu/a": 200, "eu/b": 100, "eu/c": 100}


def test_an_explanation_is_that_of_the_embedded_cluster(start_picker: StartPicker) -> None:
    embedded = Cluster("web", MEMBERS, policy=Maglev()).explain("k")
    with PickerClient(start_picker(web()).address) as client:
        explained = client.explain("web", "k")
    assert isinstance(explained, Explanation)
    assert explained.hash == hash64("k")
    assert explained.policy == "maglev"
    for field in ("priorities", "percent", "priority", "degraded", "candidates", "probes", "winner", "reason"):
        assert getattr(explained, field) == getattr(embedded, field), field


def test_an_explanation_changes_nothing_and_names_the_next_pick(start_picker: StartPicker) -> None:
    with PickerClient(start_picker(web(policy=RoundRobin())).address) as client:
        for _ in range(5):
            winner = client.explain("web").winner
            assert client.explain("web").winner == winner
            assert client.pick("web") == winner


def test_an_explanation_says_why_there_is_no_winner(start_picker: StartPicker) -> None:
    with PickerClient(start_picker(ServiceSnapshot(name="web")).address) as client:
        explained = client.explain("web")
    assert (explained.winner, explained.reason) == (None, "it has no endpoints")


@pytest.mark.parametrize(
    ("request_", "details"),
    [
        (pb.PickRequest(service="web", exclude=["nonsense"]), "exclude[0]"),
        (pb.PickRequest(service="web", local_locality="a/b/c/d"), "local_locality"),
        (pb.PickRequest(service="plain", subset={"a": 1}), "subset: service 'plain' has no subsets"),
        (pb.PickRequest(service="web", subset={"version": float("nan")}), "metadata: "),
    ],
)
def test_a_bad_field_is_refused_by_its_name(
    request_: pb.PickRequest, details: str, start_picker: StartPicker, stub_of: Callable[[PickerServer], PickerStub]
) -> None:
    stub = stub_of(start_picker(web(subsets=VERSIONS), web(name="plain")))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Pick(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details in caught.value.details()


def test_clients_refuse_what_no_request_can_say(start_picker: StartPicker) -> None:
    with PickerClient(start_picker(web(subsets=VERSIONS)).address) as client:
        with pytest.raises(InvalidSetting, match="subset"):
            client.pick("web", subset={"version": {1, 2}})
        with pytest.raises(InvalidSetting, match="exclude"):
            client.pick("web", exclude=[7])  # type: ignore[list-item]
