"""The DNS source asks a real dnsmasq: addresses, services, lifetimes; absence that is told and answers that fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.resolver
import pytest

from lbcore.source import Dns
from lbcore.sources.dns import DnsFeed
from lbcore.sources.feed import Timing
from tests.harness.name_server import NameServer
from tests.harness.scripted_name_server import Answer, answer, scripted_name_server
from tests.sources.following import Following

RECORDS = (
    "local-ttl=40",  # of records that bear none of their own, as services cannot
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
    "srv-host=_whole._tcp.internal,a.internal,8081",
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
        # That there are no IPv6 addresses says nothing of for how long the others may be used.
        ("four.internal", {"port": 80}, 30),
        ("four.internal", {"port": 80, "dns_lookup_family": "all"}, 30),
        ("_http._tcp.web.internal", {}, 5),  # one of its targets has no address
        ("_whole._tcp.internal", {}, 30),
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


SOA = "internal. {ttl} IN SOA ns.internal. admin.internal. 1 3600 600 86400 {minimum}"


def asking(address: str, name: str = "web.internal", sleeps: Sleeps | None = None, **fields: Any) -> Following:
    timing = Timing(sleep=sleeps if sleeps is not None else Sleeps(), random=lambda: 0.0)
    fields = {"port": 80, "timeout": 0.5, **fields}
    return Following(DnsFeed(Dns(name, resolvers=(address,), **fields), timing))


async def test_a_family_that_is_missing_counts_for_as_long_as_its_absence_may_be_cached() -> None:
    def reply(query: dns.message.Message, name: str, record_type: str) -> Answer:
        if record_type == "A":
            return answer(query, f"{name} 100 IN A 10.0.0.1")
        return answer(query, authority=SOA.format(ttl=90, minimum=20))

    sleeps = Sleeps()
    async with scripted_name_server(reply) as address, asking(address, sleeps=sleeps) as feed:
        await feed.next()
        await feed.next()
    assert sleeps == [20]


@pytest.mark.parametrize("failing", ["SERVFAIL", "silence"])
async def test_a_preferred_family_that_has_always_failed_is_passed_over(failing: str) -> None:
    """RFC 4074: servers that fail queries for AAAA, or drop them."""
    works = {"A"}

    def reply(query: dns.message.Message, name: str, record_type: str) -> Answer:
        if record_type not in works:
            return None if failing == "silence" else answer(query, rcode="SERVFAIL")
        return answer(query, f"{name} 30 IN {record_type} {'10.0.0.1' if record_type == 'A' else 'fd00::1'}")

    async with scripted_name_server(reply) as address, asking(address) as feed:
        assert await feed.addresses() == ["10.0.0.1:80"]
        works.add("AAAA")
        assert await feed.addresses() == ["[fd00::1]:80"]
        works.remove("AAAA")  # it has worked: now its failure is one
        assert "AAAA web.internal" in await feed.broken()


async def test_a_preferred_family_that_fails_beside_one_that_is_missing_is_no_information() -> None:
    def reply(query: dns.message.Message, _: str, record_type: str) -> Answer:
        return answer(query) if record_type == "A" else answer(query, rcode="SERVFAIL")

    async with scripted_name_server(reply) as address, asking(address) as feed:
        assert "AAAA web.internal" in await feed.broken()


async def test_a_target_is_asked_for_once_however_many_records_lead_to_it() -> None:
    asked: list[str] = []

    def reply(query: dns.message.Message, name: str, record_type: str) -> Answer:
        asked.append(record_type)
        if record_type == "SRV":
            return answer(query, *(f"{name} 30 IN SRV 0 {n} {8080 + n} a.internal." for n in range(3)))
        return answer(query, f"{name} 30 IN A 10.0.0.1")

    async with (
        scripted_name_server(reply) as address,
        asking(address, "_http._tcp.web.internal", port=None, dns_lookup_family="v4_only") as feed,
    ):
        assert await feed.addresses() == ["10.0.0.1:8080", "10.0.0.1:8081", "10.0.0.1:8082"]
    assert asked == ["SRV", "A"]


async def test_one_target_that_cannot_be_looked_up_keeps_the_whole_as_it_was() -> None:
    def reply(query: dns.message.Message, name: str, record_type: str) -> Answer:
        if record_type == "SRV":
            return answer(query, f"{name} 30 IN SRV 0 1 80 a.internal.", f"{name} 30 IN SRV 0 1 80 b.internal.")
        if name == "a.internal.":
            return answer(query, f"{name} 30 IN A 10.0.0.1")
        return answer(query, rcode="SERVFAIL")

    fields: dict[str, Any] = {"port": None, "dns_lookup_family": "v4_only"}
    async with scripted_name_server(reply) as address, asking(address, "_x._tcp.internal", **fields) as feed:
        assert "A b.internal." in await feed.broken()


@pytest.mark.parametrize(
    "reply",
    [
        lambda *_: b"",
        lambda *_: b"\xff" * 600,
        lambda query, *_: query.to_wire()[:12] + b"\xc0\x0c" * 40,  # names that point at themselves
        lambda query, *_: query,  # a question is no answer
        lambda query, name, _: answer(query, f"{name} 30 IN CNAME {name}"),
        lambda query, name, _: answer(
            query, *(f"{'x.' * n}{name} 30 IN CNAME {'x.' * (n + 1)}{name}" for n in range(40))
        ),
        lambda query, name, _: answer(query, f"{name} 30 IN CNAME 0.{name}", f"0.{name} 30 IN CNAME {name}"),
        lambda query, *_: answer(query, rcode="SERVFAIL"),
        lambda query, *_: answer(query, rcode="NOTIMP"),
        lambda query, *_: answer(query, rcode="FORMERR"),
        lambda *_: dns.message.make_response(dns.message.make_query("other.internal.", "A")),
    ],
    ids=[
        "empty",
        "noise",
        "pointers",
        "question",
        "self",
        "long chain",
        "loop",
        "servfail",
        "notimp",
        "formerr",
        "other",
    ],
)
async def test_an_answer_that_makes_no_sense_is_no_information(reply: Any) -> None:
    replies: list[Any] = [lambda query, name, _: answer(query, f"{name} 30 IN A 10.0.0.1")]
    async with (
        scripted_name_server(lambda *query: replies[-1](*query)) as address,
        asking(address, dns_lookup_family="v4_only") as feed,
    ):
        assert await feed.addresses() == ["10.0.0.1:80"]
        replies.append(reply)
        assert await feed.broken()
        replies.pop()
        assert await feed.addresses() == ["10.0.0.1:80"]


async def test_the_search_list_and_its_order_are_those_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def reply(query: dns.message.Message, name: str, _: str) -> Answer:
        asked.append(name)
        if name == "web.b.internal.":
            return answer(query, f"{name} 30 IN A 10.0.0.1")
        return answer(query, rcode="NXDOMAIN")

    async with scripted_name_server(reply) as address:
        host, port = address.split(":")
        read = dns.resolver.BaseResolver.read_resolv_conf

        def from_here(resolver: Any, _: object) -> None:
            written = tmp_path / "resolv.conf"
            written.write_text(f"nameserver {host}\nsearch a.internal b.internal\noptions ndots:1 timeout:1\n")
            read(resolver, str(written))
            resolver.port = int(port)

        monkeypatch.setattr("dns.resolver.BaseResolver.read_resolv_conf", from_here)
        source = Dns("web", port=80, dns_lookup_family="v4_only")
        async with Following(DnsFeed(source, Timing(sleep=Sleeps()))) as feed:
            assert await feed.addresses() == ["10.0.0.1:80"]
    assert asked == ["web.a.internal.", "web.b.internal."]
