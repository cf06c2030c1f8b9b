"""Endpoints in etcd in the layout of gRPC naming: one key each below a target, its value `{"Addr": …, "Metadata": …}`.

Followed as `lbcore.etcd.following` says: a lost watch resumes at the next revision, and a compaction costs a list. A
value that is none says nothing, so the endpoint that its key had stays; only the end of the key is its end.
Source: etcd client/v3/naming/endpoints (endpoints_impl.go, internal/update.go).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from lbcore.errors import InvalidSetting, StoreFailed
from lbcore.etcd.address import EtcdAddress
from lbcore.etcd.connection import EtcdConnection
from lbcore.etcd.following import PrefixFollower
from lbcore.membership import Membership
from lbcore.model import Endpoint
from lbcore.snapshot import endpoint_mistakes
from lbcore.source import Etcd
from lbcore.sources.feed import Feed, FeedBroken

__all__ = ["EtcdFeed"]

LOG = logging.getLogger(__name__)


class _Update(msgspec.Struct):
    Addr: str
    Metadata: Any = None


class EtcdFeed(Feed):
    """The endpoints below the prefix of `source.url`."""

    def __init__(self, source: Etcd) -> None:
        self._url = source.url
        self._where = ""  # the same without its password
        self._follower: PrefixFollower | None = None
        self._endpoints: dict[bytes, Endpoint] = {}
        self._said: Membership | None = None

    async def follow(self) -> AsyncGenerator[Membership, None]:
        try:
            address = EtcdAddress.parse(self._url, "url")
            self._where = str(address)
            connection = EtcdConnection(address)
            follower = PrefixFollower(connection, f"{address.prefix.lstrip('/')}/".encode())
            if self._follower is not None:  # it goes on where the last one broke
                follower.resume(self._follower)
            self._follower = follower
            try:
                async with aclosing(follower.attempt()) as steps:
                    async for step in steps:
                        for key, pair in step.changes.items():
                            self._take(key, pair.value if pair else None)
                        if step.changes or self._said is None:
                            self._said = self._membership()
                        yield self._said
            finally:
                await connection.close()
        except (StoreFailed, InvalidSetting) as wrong:
            raise FeedBroken(str(wrong)) from None

    def _take(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._endpoints.pop(key, None)
            return
        try:
            self._endpoints[key] = _endpoint(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidSetting) as wrong:
            what = "stays as it was" if key in self._endpoints else "is left out"
            LOG.warning("%s: %s %s: %s", self._where, key.decode(errors="replace"), what, wrong)

    def _membership(self) -> Membership:
        by_address: dict[str, Endpoint] = {}
        for _, endpoint in sorted(self._endpoints.items()):
            by_address.setdefault(endpoint.address, endpoint)
        return Membership(tuple(by_address.values()))


def _endpoint(value: bytes) -> Endpoint:
    """Raises `InvalidSetting`, or msgspec's error."""
    update = msgspec.json.decode(value, type=_Update)
    metadata: Mapping[str, Any] = update.Metadata if isinstance(update.Metadata, Mapping) else {}
    weight = metadata.get("weight", 1)
    endpoint = Endpoint(update.Addr, weight=weight if type(weight) is int else 1, metadata=metadata)
    if mistakes := [*endpoint_mistakes((endpoint,))]:
        raise InvalidSetting(*mistakes)
    return endpoint
