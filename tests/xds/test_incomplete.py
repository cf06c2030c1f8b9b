"""While a source cannot be heard, what others know is answered, and nobody is told that a thing does not exist."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from lbcore.directory import Directory
from lbcore.membership import Membership
from lbcore.model import Endpoint
from lbcore.xds.feed import FedCatalog, change_between
from lbcore.xds.resources import Catalog
from tests.xds.clients import CDS, EDS, LDS, PER_TYPE, Plane, plane, ports, resources, service, versions

REGISTERED = {"db": Membership((Endpoint("10.0.0.9:99"),))}


@pytest.fixture
async def server() -> AsyncIterator[Plane]:
    """The file says `web` and `api`, and `bare` without endpoints; a registry that may have more cannot be heard."""
    directory = Directory()
    directory.await_source("registry")
    async with plane(directory) as running:
        running.publish(service("web", 80), service("api", 81), service("bare"))
        directory.go_on_without("registry", "nobody there")
        yield running


def heard(server: Plane) -> None:
    server.directory.publish_members("registry", REGISTERED)


async def test_endpoints_that_are_known_are_sent_and_others_when_they_are(server: Plane) -> None:
    client = server.sotw()
    await client.ask(EDS, "web", "db", "bare")
    first = await client.settle(EDS, "web", "db", "bare")
    assert {name: ports(each) for name, each in first.items()} == {"web": [80]}
    assert await client.quiet()
    heard(server)
    assert {name: ports(each) for name, each in (await client.settle(EDS)).items()} == {"db": [99], "bare": []}


async def test_delta_names_nothing_as_gone_before_that_is_known(server: Plane) -> None:
    client = server.delta()
    await client.ask(EDS, "web", "db", "nobody")
    assert await client.settle(EDS) == ({"web": await assignment(server, "web")}, [])
    assert await client.quiet()
    heard(server)
    found, gone = await client.settle(EDS)
    assert (found.keys(), gone) == ({"db"}, ["nobody"])


async def assignment(server: Plane, name: str) -> object:
    client = server.sotw()
    await client.ask(EDS, name)
    return resources(await client.receive(EDS))[name]


async def test_a_client_that_starts_gets_all_clusters_that_are_known(server: Plane) -> None:
    sotw, delta = server.sotw(), server.delta()
    await sotw.ask(CDS)
    await delta.ask(CDS)
    assert (await sotw.settle(CDS)).keys() == {"web", "api"}
    assert (await delta.settle(CDS))[0].keys() == {"web", "api"}
    heard(server)
    assert (await sotw.settle(CDS)).keys() == {"web", "api", "bare", "db"}
    assert (await delta.settle(CDS))[0].keys() == {"bare", "db"}


async def test_a_client_that_has_clusters_from_elsewhere_loses_none(server: Plane) -> None:
    sotw, delta = server.sotw(), server.delta()
    await sotw.ask(CDS, version="of another server")
    await delta.ask(CDS, has={"db": "1", "gone": "1"})
    assert await sotw.quiet()
    found, gone = await delta.settle(CDS)
    assert (found.keys(), gone) == ({"web", "api"}, [])
    heard(server)
    assert (await sotw.settle(CDS)).keys() == {"web", "api", "bare", "db"}
    found, gone = await delta.settle(CDS)
    assert (found.keys(), gone) == ({"bare", "db"}, ["gone"])


async def test_a_client_that_has_endpoints_from_elsewhere_loses_none(server: Plane) -> None:
    sotw, delta = server.sotw(), server.delta()
    await sotw.ask(EDS, "web", version="of another server")
    await delta.ask(EDS, "web", "api", has={"web": "1"})
    assert await sotw.quiet()
    assert (await delta.settle(EDS))[0].keys() == {"api"}
    assert await delta.quiet()
    heard(server)
    assert (await sotw.settle(EDS)).keys() == {"web"}
    assert (await delta.settle(EDS))[0].keys() == {"web"}


async def test_a_list_of_names_is_answered_when_all_of_them_are_known(server: Plane) -> None:
    """Of these types a response says of what it leaves out that it does not exist."""
    one, both = server.sotw(), server.sotw()
    await one.ask(LDS, "web")
    await both.ask(LDS, "web", "db")
    assert (await one.settle(LDS, "web")).keys() == {"web"}
    assert await both.quiet()
    heard(server)
    assert (await both.settle(LDS, "web", "db")).keys() == {"web", "db"}


async def test_what_a_client_was_told_of_does_not_go_while_it_may_be_elsewhere(server: Plane) -> None:
    client = server.sotw()
    await client.ask(CDS)
    await client.settle(CDS)
    server.remove("api")
    assert await client.quiet()
    heard(server)
    assert (await client.settle(CDS)).keys() == {"web", "bare", "db"}


async def test_a_client_that_starts_waits_where_nothing_is_known() -> None:
    directory = Directory()
    directory.await_source("registry")
    async with plane(directory) as server:
        server.publish()
        directory.go_on_without("registry", "nobody there")
        sotw, delta = server.sotw(), server.delta()
        await sotw.ask(CDS)
        await delta.ask(CDS)
        assert await sotw.quiet()
        assert await delta.quiet()
        heard(server)
        assert (await sotw.settle(CDS)).keys() == {"db"}
        assert (await delta.settle(CDS))[0].keys() == {"db"}


async def test_a_single_request_for_what_is_not_known_is_to_be_made_again(server: Plane) -> None:
    package, kind = PER_TYPE[EDS]
    fetch = server.channel.unary_unary(f"{package}Fetch{kind}")

    async def status(name: str) -> grpc.StatusCode:
        request = server.sotw().request_class(resource_names=[name])
        call = fetch(request.SerializeToString())
        code: grpc.StatusCode = await call.code()
        return code

    before = [await status("web"), await status("db"), await status("nobody")]
    heard(server)
    after = [await status("web"), await status("db"), await status("nobody")]
    unknown, ok = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK
    assert (before, after) == ([ok, unknown, unknown], [ok, ok, grpc.StatusCode.NOT_FOUND])


async def test_workers_know_whether_what_they_have_is_all(server: Plane) -> None:
    fed = FedCatalog()
    before = Catalog(server.directory.current)
    assert not fed.apply(change_between(None, before)).complete
    heard(server)
    assert fed.apply(change_between(before, Catalog(server.directory.current, before))).complete


async def test_versions_are_what_they_would_be_had_everything_been_known(server: Plane) -> None:
    early, late = server.delta(), server.delta()
    await early.ask(CDS)
    known = versions(await early.receive(CDS))
    heard(server)
    await late.ask(CDS, has=known)
    assert versions(await late.receive(CDS)).keys() == {"bare", "db"}
