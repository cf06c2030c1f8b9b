"""Members of a service from several sources: who decides, what waits, and what stays when something does not fit."""

from __future__ import annotations

from lbcore.directory import Directory
from lbcore.membership import Membership
from lbcore.model import Endpoint, Locality
from lbcore.policy import Random
from lbcore.snapshot import ServiceSnapshot

ONE, TWO, THREE = (f"10.0.0.{n}:80" for n in (1, 2, 3))


def members(*addresses: str, **weights: int) -> Membership:
    return Membership(tuple(map(Endpoint, addresses)), {Locality(place): each for place, each in weights.items()})


def addresses(directory: Directory, service: str = "web") -> list[str]:
    return [endpoint.address for endpoint in directory.current.services[service].endpoints]


def test_members_join_a_service_that_another_source_defines() -> None:
    directory = Directory()
    directory.publish("file", [ServiceSnapshot(name="web", endpoints=(Endpoint(ONE),), policy=Random())])
    directory.publish_members("registry", {"web": members(TWO)})
    assert (addresses(directory), directory.current.services["web"].policy) == ([ONE, TWO], Random())


def test_the_definition_decides_over_members_of_the_same_address_and_locality() -> None:
    directory = Directory()
    directory.publish_members("registry", {"web": Membership((Endpoint(ONE, locality="a"),), {Locality("a"): 9})})
    written = ServiceSnapshot(
        name="web", endpoints=(Endpoint(ONE, weight=5, locality="a"),), locality_weights={Locality("a"): 3}
    )
    directory.publish("file", [written])
    assert directory.current.services["web"] == written


def test_of_two_sources_of_members_the_earlier_decides() -> None:
    directory = Directory()
    directory.publish_members("dns", {"web": members(ONE)})
    directory.publish_members("registry", {"web": Membership((Endpoint(ONE, weight=7), Endpoint(TWO)))})
    assert [(each.address, each.weight) for each in directory.current.services["web"].endpoints] == [(ONE, 1), (TWO, 1)]


def test_a_service_that_nobody_defines_exists_as_long_as_it_has_members() -> None:
    directory = Directory()
    directory.publish_members("registry", {"web": members(ONE)})
    assert addresses(directory) == [ONE]
    assert directory.publish_members("registry", {})
    assert directory.current.services == {}


def test_members_outlive_the_definition() -> None:
    directory = Directory()
    directory.publish("file", [ServiceSnapshot(name="web", endpoints=(Endpoint(ONE),))])
    directory.publish_members("registry", {"web": members(TWO)})
    directory.publish("file", [])
    assert addresses(directory) == [TWO]


def test_the_same_members_again_change_nothing() -> None:
    directory = Directory()
    directory.publish_members("registry", {"web": members(ONE)})
    before = directory.current
    assert not directory.publish_members("registry", {"web": members(ONE)})
    assert directory.current is before


def test_members_that_do_not_fit_leave_the_service_as_it_was() -> None:
    directory = Directory()
    directory.publish("file", [ServiceSnapshot(name="web", endpoints=(Endpoint(ONE, weight=2**32 - 1),))])
    directory.publish_members("registry", {"web": members(TWO), "api": members(THREE)})
    assert (addresses(directory), addresses(directory, "api")) == ([ONE], [THREE])


def test_staleness_comes_and_goes_with_publications() -> None:
    directory = Directory()
    directory.publish_members("registry", {"web": members(ONE)}, stale="9 of 10 leases are held")
    assert directory.current.stale == {"registry": "9 of 10 leases are held"}
    directory.publish_members("registry", {"web": members(ONE)})
    assert directory.current.stale == {}


def test_nothing_is_in_sync_before_an_awaited_source_of_members_has_published() -> None:
    directory = Directory()
    directory.await_source("dns:web")
    directory.publish("file", [ServiceSnapshot(name="web")], sourced={"web": "dns:web"})
    assert not directory.synced
    directory.publish_members("dns:web", {"web": members(ONE)})
    assert (directory.synced, addresses(directory)) == (True, [ONE])


def test_a_new_service_is_not_there_before_its_source_has_published_even_that_it_has_no_members() -> None:
    directory = Directory()
    directory.publish("file", [ServiceSnapshot(name="web")], sourced={"web": "dns:web"})
    assert directory.current.services == {}
    directory.publish_members("dns:web", {})
    assert addresses(directory) == []


def test_a_service_that_gets_a_source_stays_as_it_was_until_that_has_published() -> None:
    directory = Directory()
    directory.publish("file", [ServiceSnapshot(name="web", endpoints=(Endpoint(ONE),))])
    directory.publish("file", [ServiceSnapshot(name="web", policy=Random())], sourced={"web": "dns:web"})
    assert addresses(directory) == [ONE]
    directory.publish_members("dns:web", {"web": members(TWO)})
    assert (addresses(directory), directory.current.services["web"].policy) == ([TWO], Random())


def test_a_service_that_loses_its_source_is_what_its_definition_says() -> None:
    directory = Directory()
    directory.publish("file", [ServiceSnapshot(name="web")], sourced={"web": "dns:web"})
    directory.publish("file", [ServiceSnapshot(name="web", endpoints=(Endpoint(THREE),))])
    assert addresses(directory) == [THREE]


def test_a_source_that_is_forgotten_leaves_nothing_behind() -> None:
    directory = Directory()
    directory.await_source("dns:api")
    directory.publish_members("dns:web", {"web": members(ONE)}, stale="no answer")
    directory.forget("dns:web")
    directory.forget("dns:api")
    current = directory.current
    assert (directory.synced, directory.sources, dict(current.services), dict(current.stale)) == (True, (), {}, {})
