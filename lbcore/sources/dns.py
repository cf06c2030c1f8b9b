"""Addresses of a name from DNS: A and AAAA records at a port, or SRV records, asked again when their TTL ends.

NXDOMAIN and an answer without records of the type say that there are none: information of absence, so the endpoints go.
SERVFAIL, REFUSED, a timeout and an unreachable server say nothing: the feed breaks and what was known stays. An answer
counts only when all queries that it takes have been answered. Of two families of which one is preferred the other is
taken where the preferred one fails and has never had an address, because some servers fail queries for AAAA instead of
saying that there are none (RFC 4074). Envoy takes the other then as well (dns_impl.cc, onAresGetAddrInfoCallback).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver

from lbcore.address import split_address
from lbcore.membership import Membership
from lbcore.model import MAX_PRIORITY, Endpoint
from lbcore.source import Dns
from lbcore.sources.feed import Feed, FeedBroken, Timing

__all__ = ["DnsFeed"]

_SPREAD = 0.1  # of the TTL, at random, so that those who asked together do not come back together
_FAMILIES = {
    "auto": ("AAAA", "A"),
    "v6_only": ("AAAA",),
    "v4_only": ("A",),
    "v4_preferred": ("A", "AAAA"),
    "all": ("A", "AAAA"),
}


class DnsFeed(Feed):
    """Asks for the records of one name."""

    def __init__(self, source: Dns, timing: Timing) -> None:
        self._source = source
        self._timing = timing
        self._ttl = 0.0  # seconds; the shortest among the answers of one round
        self._has_had: set[str] = set()  # the types of which there has been an address

    async def follow(self) -> AsyncGenerator[Membership, None]:
        resolver = _resolver(self._source)  # made anew after each failure, because /etc/resolv.conf may have changed
        while True:
            self._ttl = self._source.max_ttl
            endpoints = tuple(await self._look(resolver))
            yield Membership(endpoints)
            # Who waits for a name is in a hurry, however long its absence may be cached.
            valid = max(self._ttl if endpoints else 0.0, self._source.min_ttl)
            await self._timing.sleep(valid * (1.0 + _SPREAD * self._timing.random()))

    async def _look(self, resolver: dns.asyncresolver.Resolver) -> Iterable[Endpoint]:
        source = self._source
        if source.port is None:
            return await self._services(resolver)
        return [Endpoint(_at(host, source.port)) for host in await self._hosts(resolver, source.name)]

    async def _services(self, resolver: dns.asyncresolver.Resolver) -> Iterable[Endpoint]:
        """SRV (RFC 2782): the lowest priority is used first; a target `.` says that the service is not to be had."""
        records = await self._query(resolver, self._source.name, "SRV")
        records = sorted(records, key=lambda srv: (srv.priority, srv.target, srv.port))
        ranks = {priority: rank for rank, priority in enumerate(sorted({srv.priority for srv in records}))}
        endpoints: dict[str, Endpoint] = {}
        hosts: dict[str, list[str]] = {}
        for srv in records:
            target = srv.target.to_text(omit_final_dot=True)
            if srv.target == dns.name.root or not srv.port:
                continue
            if target not in hosts:
                hosts[target] = await self._hosts(resolver, f"{target}.")
                self._ttl = self._ttl if hosts[target] else 0.0
            for host in hosts[target]:
                endpoint = Endpoint(
                    _at(host, srv.port),
                    weight=max(srv.weight, 1),  # 0 is the smallest weight, not none
                    priority=min(ranks[srv.priority], MAX_PRIORITY),
                    hostname=target,
                )
                endpoints.setdefault(endpoint.address, endpoint)
        return endpoints.values()

    async def _hosts(self, resolver: dns.asyncresolver.Resolver, name: str) -> list[str]:
        """The IP addresses of a name, sorted: the order in which servers rotate them means nothing."""
        families = _FAMILIES[self._source.dns_lookup_family]
        if self._source.dns_lookup_family == "all":
            return [host for family in families for host in await self._of_family(resolver, name, family)]
        preferred, *others = families
        try:
            found = await self._of_family(resolver, name, preferred)
        except FeedBroken:
            for other in others if preferred not in self._has_had else ():
                with suppress(FeedBroken):
                    if found := await self._of_family(resolver, name, other):
                        return found
            raise
        for other in others:
            found = found or await self._of_family(resolver, name, other)
        return found

    async def _of_family(self, resolver: dns.asyncresolver.Resolver, name: str, record_type: str) -> list[str]:
        found = sorted({record.address for record in await self._query(resolver, name, record_type)})
        if found:
            self._has_had.add(record_type)
        return found

    async def _query(self, resolver: dns.asyncresolver.Resolver, name: str, record_type: str) -> list[Any]:
        """The records, none where there are none for certain. Raises `FeedBroken`."""
        try:
            answer = await resolver.resolve(name, record_type, raise_on_no_answer=False, lifetime=self._source.timeout)
        except dns.resolver.NXDOMAIN:
            return []
        except dns.exception.Timeout:
            raise FeedBroken(f"{record_type} {name}: no answer within {self._source.timeout:g} s") from None
        except dns.exception.DNSException as failed:
            raise FeedBroken(f"{record_type} {name}: {failed}") from None
        except OSError as failed:
            raise FeedBroken(f"{record_type} {name}: {failed.strerror or failed}") from None
        self._ttl = min(self._ttl, answer.chaining_result.minimum_ttl)  # of the SOA where there are no records
        return list(answer.rrset or ())


def _resolver(source: Dns) -> dns.asyncresolver.Resolver:
    """Raises `FeedBroken` where the system's configuration cannot be read."""
    if not source.resolvers:
        try:
            resolver = dns.asyncresolver.Resolver()
        except (dns.exception.DNSException, OSError) as failed:
            raise FeedBroken(f"/etc/resolv.conf: {failed}") from None
        resolver.use_search_by_default = True
        return resolver
    resolver = dns.asyncresolver.Resolver(configure=False)
    servers = [split_address(address) for address in source.resolvers]
    resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port or 53) for host, port in servers]
    return resolver


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
