"""The DNS source asks a real dnsmasq: addresses, services, lifetimes; absence that is told and answers that fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lbcore.source import Dns
from lbcore.sources.dns import DnsFeed
from lbcore.sources.feed import Timing
from tests.harness.name_server import NameServer
from tests.sources.following import Following

RECORDS = (
    "host-record=web.internal,10.0.0.2,fd00::2,30",
    "host-record=web.internal,10.0.0.1,30",
    "host-record=four.internal,10.0.0.4,30",
    "host-record=brief.internal,10.0.0.5,1",
    "host-record=lasting.internal,10.0.0.6,86400",
    "cname=www.internal,four.internal,7",
    "host-record=a.internal,10.0.1.1,30",
    "host-record=b.internal,10.0.1.2,60",
    "srv-host=_http._tcp.web.internal,a.internal,8081,10,60",
    "srv-host=_http._tcp.web.internal,b.internal,8082,10,0",
    "srv-host=_http._tcp.web.internal,b.internal,8083,20,5",
    "srv-host=_http._tcp.web.internal,gone.internal,8084,20,5",
    "txt-record=text.internal,nothing more",
    # A target of "." says that the service is decidedly not to be had here (RFC 2782).
    "srv-host=_none._tcp.internal,.,0,0,0",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NameServer]:
    with NameServer(tmp_path_factory.mktemp("dns"), *RECORDS) as server:
        yield server


class Sleeps(list[float]):
    """How long a feed would have slept."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def following(
    server: NameServer, name: str, sleeps: Sleeps | None = None, random: float = 0.0, **fields: Any
) -> Following:
    timing = Timing(sleep=sleeps if sleeps is not None else Sleeps(), random=lambda: random)
    return Following(DnsFeed(Dns(name, resolvers=(server.address,), **fields), timing))


@pytest.mark.parametrize(
    ("name", "family", "addresses"),
    [
        ("web.internal", "auto", ["[fd00::2]:80"]),
        ("web.internal", "v6_only", ["[fd00::2]:80"]),
        ("web.internal", "v4_only", ["10.0.0.1:80", "10.0.0.2:80"]),
        ("web.internal", "v4_preferred", ["10.0.0.1:80", "10.0.0.2:80"]),
        ("web.internal", "all", ["10.0.0.1:80", "10.0.0.2:80", "[fd00::2]:80"]),
        ("four.internal", "auto", ["10.0.0.4:80"]),
        ("four.internal", "v6_only", []),
        ("www.internal", "auto", ["10.0.0.4:80"]),
        ("four.internal.", "auto", ["10.0.0.4:80"]),
    ],
)
async def test_addresses_by_family(server: NameServer, name: str, family: str, addresses: list[str]) -> None:
    async with following(server, name, port=80, dns_lookup_family=family) as feed:
        assert await feed.addresses() == addresses


async def test_services_with_ports_priorities_and_weights(server: NameServer) -> None:
    async with following(server, "_http._tcp.web.internal") as feed:
        found = {each.address: (each.priority, each.weight, each.hostname) for each in (await feed.next()).endpoints}
    assert found == {
        "10.0.1.1:8081": (0, 60, "a.internal"),
        "10.0.1.2:8082": (0, 1, "b.internal"),
        "10.0.1.2:8083": (1, 5, "b.internal"),
    }


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("no.internal", {"port": 80}),
        ("text.internal", {"port": 80}),
        ("_no._tcp.internal", {}),
        ("_none._tcp.internal", {}),
    ],
)
async def test_an_answer_that_there_is_nothing_is_information(
    server: NameServer, name: str, fields: dict[str, int]
) -> None:
    async with following(server, name, **fields) as feed:
        assert await feed.addresses() == []


async def test_a_refusal_is_no_information(server: NameServer) -> None:
    async with following(server, "elsewhere.example", port=80) as feed:
        assert "answered REFUSED" in await feed.broken()


async def test_silence_is_no_information(tmp_path: Path) -> None:
    server = NameServer(tmp_path)  # not started
    async with following(server, "web.internal", port=80, timeout=0.2) as feed:
        assert await feed.broken() == "AAAA web.internal: no answer within 0.2 s"


@pytest.mark.parametrize(
    ("name", "fields", "seconds"),
    [
        ("four.internal", {"port": 80, "dns_lookup_family": "v4_only"}, 30),
        ("www.internal", {"port": 80, "dns_lookup_family": "v4_only"}, 7),
        ("brief.internal", {"port": 80, "dns_lookup_family": "v4_only"}, 5),
        ("brief.internal", {"port": 80, "dns_lookup_family": "v4_only", "min_ttl": 0.5}, 1),
        ("lasting.internal", {"port": 80, "dns_lookup_family": "v4_only"}, 300),
        ("lasting.internal", {"port": 80, "dns_lookup_family": "v4_only", "max_ttl": 60}, 60),
        ("no.internal", {"port": 80}, 5),
    ],
)
async def test_an_answer_is_used_for_its_ttl_within_bounds(
    server: NameServer, name: str, fields: dict[str, Any], seconds: float
) -> None:
    sleeps = Sleeps()
    async with following(server, name, sleeps, **fields) as feed:
        await feed.next()
        await feed.next()
    assert sleeps == [seconds]


async def test_those_who_asked_together_come_back_apart(server: NameServer) -> None:
    sleeps = Sleeps()
    async with following(server, "four.internal", sleeps, random=0.5, port=80, dns_lookup_family="v4_only") as feed:
        await feed.next()
        await feed.next()
    assert sleeps == [30 * 1.05]


async def test_changes_are_followed_through_an_outage(tmp_path: Path) -> None:
    with NameServer(tmp_path, "host-record=web.internal,10.0.0.1,1") as server:
        async with following(server, "web.internal", port=80, dns_lookup_family="v4_only", timeout=1.0) as feed:
            before = await feed.addresses()
            server.stop()
            broken = await feed.broken()
            server.change("host-record=web.internal,10.0.0.2,1")
            await feed.until("10.0.0.2:80")
    assert (before, broken) == (["10.0.0.1:80"], "A web.internal: no answer within 1 s")


async def test_an_answer_too_long_for_a_datagram_comes_over_tcp(tmp_path: Path) -> None:
    many = [f"host-record=many.internal,10.1.{n // 250}.{n % 250 + 1}" for n in range(500)]
    with NameServer(tmp_path, *many) as server:
        async with following(server, "many.internal", port=80, dns_lookup_family="v4_only") as feed:
            assert len(await feed.addresses()) == 500


async def test_the_system_s_resolvers_are_asked_where_none_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dns.resolver.BaseResolver.read_resolv_conf", lambda *_: (_ for _ in ()).throw(OSError("gone")))
    async with Following(DnsFeed(Dns("web.internal", port=80), Timing())) as feed:
        assert await feed.broken() == "/etc/resolv.conf: gone"
