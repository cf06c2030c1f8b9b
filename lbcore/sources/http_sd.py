"""Prometheus's HTTP service discovery as a source: a JSON list of targets and labels, fetched again and again.

Each answer is the whole list. An error of any kind (no answer, a status that is not 200, text that is no such list)
keeps the last one; only `[]` says that there are none. Of the labels, those that lbcore's own `/sd` writes become
fields of the endpoint (`lbcore.sources.http_sd_labels`); all others become metadata.
Source: Prometheus docs, http_sd.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from decimal import Decimal

import aiohttp
import msgspec

from lbcore.errors import InvalidSetting
from lbcore.membership import Membership
from lbcore.model import Endpoint
from lbcore.source import HttpSd
from lbcore.sources.feed import Feed, FeedBroken, Timing
from lbcore.sources.http import HttpClient, body, decoded
from lbcore.sources.http_sd_labels import endpoint_of

__all__ = ["HttpSdFeed", "TargetGroup"]

_SPREAD = 0.1  # of the interval, at random, so that those who asked together do not come back together


class TargetGroup(msgspec.Struct):
    """Targets that have all of their labels in common."""

    targets: list[str]
    labels: dict[str, str] | None = None  # null, as Go writes a map without anything


class HttpSdFeed(Feed):
    """Polls one URL."""

    def __init__(self, source: HttpSd, timing: Timing) -> None:
        self._source = source
        self._timing = timing
        self._client = HttpClient(source)
        self._etag = ""
        self._digest = b""  # of the list that was read last
        self._last = Membership()  # what that says

    async def follow(self) -> AsyncGenerator[Membership, None]:
        async with self._client.session() as session:
            while True:
                yield await self._ask(session)
                await self._timing.sleep(self._source.refresh_interval * (1.0 + _SPREAD * self._timing.random()))

    async def _ask(self, session: aiohttp.ClientSession) -> Membership:
        # Prometheus sends these too; a server may heed them or not.
        interval = format(Decimal(repr(float(self._source.refresh_interval))).normalize(), "f")
        headers = {"Accept": "application/json", "X-Prometheus-Refresh-Interval-Seconds": interval}
        if self._digest and self._etag:
            headers["If-None-Match"] = self._etag
        async with self._client.get(session, self._source.url, headers=headers) as response:
            if response.status == 304 and self._digest:
                return self._last
            content = await body(response)
            etag = response.headers.get("ETag", "")
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest != self._digest:
            # In a thread, because a hundred thousand targets take a second.
            self._last = await asyncio.to_thread(self._members, content)
        self._digest, self._etag = digest, etag
        return self._last

    def _members(self, content: bytes) -> Membership:
        endpoints: dict[str, Endpoint] = {}
        for index, group in enumerate(decoded(content, list[TargetGroup])):
            labels = group.labels or {}
            if not self._source.labels.items() <= labels.items():
                continue
            for position, target in enumerate(group.targets):
                try:
                    endpoint = endpoint_of(target, labels)
                except InvalidSetting as wrong:
                    raise FeedBroken(f"not as expected: [{index}].targets[{position}]: {wrong}") from None
                endpoints.setdefault(endpoint.address, endpoint)
        return Membership(tuple(endpoints.values()))
