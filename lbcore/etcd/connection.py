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
        self._channel: grpc.aio.Channel | None = None
        self._under_way: dict[grpc.aio.Channel, int] = {}  # calls
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
                with self._in_use() as channel:
                    metadata = await self._metadata(channel)
                    stub = getattr(rpc, f"{service}Stub")(channel)
                    return await getattr(stub, method)(request, timeout=self._timeout, metadata=metadata)
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
            with self._in_use() as channel:
                metadata = await self._metadata(channel)
                call = getattr(getattr(rpc, f"{service}Stub")(channel), method)(requests, metadata=metadata)
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
        channel, self._channel = self._channel, None
        if channel is not None and channel not in self._under_way:
            self._end(channel)

    async def close(self) -> None:
        """Ends the connection."""
        last, self._channel = self._channel, None
        for channel in {*self._under_way, *([last] if last is not None else [])}:
            self._end(channel)
        await asyncio.gather(*self._closing)

    @contextmanager
    def _in_use(self) -> Iterator[grpc.aio.Channel]:
        """The channel to the member of now, which stays open as long as it is used."""
        channel = self._connected()
        self._under_way[channel] = self._under_way.get(channel, 0) + 1
        try:
            yield channel
        finally:
            if channel in self._under_way:  # else it has been closed under the call
                self._under_way[channel] -= 1
                if not self._under_way[channel]:
                    del self._under_way[channel]
                    if channel is not self._channel:
                        self._end(channel)

    async def _metadata(self, channel: grpc.aio.Channel) -> tuple[tuple[str, str], ...]:
        if self.address.user and not self._token:
            request = rpc.AuthenticateRequest(name=self.address.user, password=self.address.secret())
            stub = rpc.AuthStub(channel)
            self._token = (await stub.Authenticate(request, timeout=self._timeout)).token
        return (("hasleader", "true"), *((("token", self._token),) if self._token else ()))

    def _connected(self) -> grpc.aio.Channel:
        if self._channel is None:
            if self.address.tls:
                credentials = grpc.ssl_channel_credentials(*self.address.certificates())
                self._channel = grpc.aio.secure_channel(self.member, credentials, options=_OPTIONS)
            else:
                self._channel = grpc.aio.insecure_channel(self.member, options=_OPTIONS)
        return self._channel

    def _failure(self, member: str, error: grpc.RpcError) -> StoreFailed:
        if error.code() in _LOST:
            self.give_up(member)
        return StoreFailed(f"etcd {member}: {error.code().name}: {error.details()}")

    def _end(self, channel: grpc.aio.Channel) -> None:
        self._under_way.pop(channel, None)
        self._closing.add(closing := asyncio.ensure_future(channel.close(grace=None)))
        closing.add_done_callback(self._closing.discard)


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys with a prefix.

    >>> prefix_end(b"/a/")
    b'/a0'
    """
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"
