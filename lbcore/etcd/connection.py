"""A connection to an etcd cluster: unary calls and the two streams, to one member at a time.

When a member fails, the next call goes to the next one. Calls under way on the one before end by themselves: gRPC would
cancel them with the channel, which looks as if whoever waits for them were cancelled. Every call says `hasleader`, so
that a member that is cut off from the others refuses rather than keep its readers waiting. Reference: etcd api/v3rpc,
clientv3.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
from aetcd import rpc
from async_timeout import timeout as time_limit
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs lacks it

from lbcore.errors import StoreFailed
from lbcore.etcd.address import EtcdAddress

__all__ = ["EtcdConnection", "prefix_end"]

_TIMEOUT = 5.0  # seconds for a unary call
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # a list of everything is one message
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),  # what a connection may take; less is too little for TLS over a distance
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN)


class EtcdConnection:
    """To be made and used in one event loop. Every failure is a `StoreFailed` that says which member and why."""

    def __init__(self, address: EtcdAddress, timeout: float = _TIMEOUT) -> None:
        self.address = address
        self._timeout = timeout
        self._turn = 0
        self._link: _Link | None = None
        self._busy: set[_Link] = set()  # with calls under way
        self._token = ""
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def member(self) -> str:
        """The member that calls go to now."""
        return self.address.members[self._turn % len(self.address.members)]

    async def call(self, service: str, method: str, request: Any) -> Any:
        """One unary call, such as `call("KV", "Range", rpc.RangeRequest(...))`. Raises `StoreFailed`."""
        for attempt in range(2):
            member = self.member
            try:
                with self._in_use() as link:
                    metadata = await self._metadata(link)
                    return await link.method(service, method)(request, timeout=self._timeout, metadata=metadata)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNAUTHENTICATED and attempt == 0:
                    self._token = ""  # etcd's tokens expire
                    continue
                raise self._failure(member, error) from None
        raise AssertionError

    async def stream(
        self, service: str, method: str, requests: AsyncIterator[Any], patience: float | None = None
    ) -> AsyncIterator[Any]:
        """A stream. Raises `StoreFailed` when it breaks or is silent for `patience` seconds, and when etcd ends it."""
        member = self.member
        try:
            with self._in_use() as link:
                metadata = await self._metadata(link)
                call = link.method(service, method)(requests, metadata=metadata)
                try:
                    while True:
                        async with time_limit(patience):
                            response = await call.read()
                        if response is EOF:
                            break
                        yield response
                finally:
                    call.cancel()
        except asyncio.TimeoutError:
            self.give_up(member)
            raise StoreFailed(f"etcd {member}: nothing heard for {patience:g} s") from None
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                self._token = ""
            raise self._failure(member, error) from None
        raise StoreFailed(f"etcd {member}: ended the stream")

    def give_up(self, member: str) -> None:
        """Has the next call go to another member than this one, unless another failure has seen to that."""
        if member != self.member or len(self.address.members) == 1:
            return
        self._turn += 1
        link, self._link = self._link, None
        if link is not None and link not in self._busy:
            self._end(link)

    async def close(self) -> None:
        """Ends the connection."""
        last, self._link = self._link, None
        for link in {*self._busy, *([last] if last is not None else [])}:
            self._end(link)
        await asyncio.gather(*self._closing)

    @contextmanager
    def _in_use(self) -> Iterator[_Link]:
        """The link to the member of now, which stays open as long as it is used."""
        link = self._connected()
        link.calls += 1
        self._busy.add(link)
        try:
            yield link
        finally:
            link.calls -= 1
            if not link.calls and link in self._busy:  # else it has been closed under the call
                self._busy.discard(link)
                if link is not self._link:
                    self._end(link)

    async def _metadata(self, link: _Link) -> tuple[tuple[str, str], ...]:
        if self.address.user and not self._token:
            request = rpc.AuthenticateRequest(name=self.address.user, password=self.address.secret())
            self._token = (await link.method("Auth", "Authenticate")(request, timeout=self._timeout)).token
        return (("hasleader", "true"), *((("token", self._token),) if self._token else ()))

    def _connected(self) -> _Link:
        if self._link is None:
            if self.address.tls:
                credentials = grpc.ssl_channel_credentials(*self.address.certificates())
                self._link = _Link(grpc.aio.secure_channel(self.member, credentials, options=_OPTIONS))
            else:
                self._link = _Link(grpc.aio.insecure_channel(self.member, options=_OPTIONS))
        return self._link

    def _failure(self, member: str, error: grpc.RpcError) -> StoreFailed:
        if error.code() in _LOST:
            self.give_up(member)
        return StoreFailed(f"etcd {member}: {error.code().name}: {error.details()}")

    def _end(self, link: _Link) -> None:
        self._busy.discard(link)
        self._closing.add(closing := asyncio.ensure_future(link.channel.close(grace=None)))
        closing.add_done_callback(self._closing.discard)


class _Link:
    """A channel to one member, its methods, and how many calls are under way on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.calls = 0
        self._stubs: dict[str, Any] = {}

    def method(self, service: str, method: str) -> Any:
        """A method, made once: to make a stub takes as long as a small call."""
        if service not in self._stubs:
            self._stubs[service] = getattr(rpc, f"{service}Stub")(self.channel)
        return getattr(self._stubs[service], method)


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys with a prefix.

    >>> prefix_end(b"/a/")
    b'/a0'
    """
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"
