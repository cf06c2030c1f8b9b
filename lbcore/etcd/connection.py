"""A connection to an etcd cluster: unary calls and the two streams, to one member at a time.

When a member fails, the next call goes to the next one. Every call says `hasleader`, so that a member that is cut off
from the others refuses rather than keep its readers waiting. Reference: etcd api/v3rpc, clientv3.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from aetcd import rpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs lacks it

from lbcore.errors import StoreFailed
from lbcore.etcd.address import EtcdAddress

__all__ = ["EtcdConnection", "prefix_end"]

_TIMEOUT = 5.0  # seconds for a unary call
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # a list of everything is one message
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
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
                stub = getattr(rpc, f"{service}Stub")(self._connected())
                metadata = await self._metadata()
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
        call: Any = None
        try:
            stub = getattr(rpc, f"{service}Stub")(self._connected())
            call = getattr(stub, method)(requests, metadata=await self._metadata())
            while (response := await asyncio.wait_for(call.read(), patience)) is not EOF:
                yield response
        except asyncio.TimeoutError:
            self._move(member)
            raise StoreFailed(f"etcd {member}: nothing heard for {patience:g} s") from None
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                self._token = ""
            raise self._failure(member, error) from None
        finally:
            if call is not None:
                call.cancel()
        raise StoreFailed(f"etcd {member}: ended the stream")

    async def close(self) -> None:
        """Ends the connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(grace=None)
        await asyncio.gather(*self._closing)

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        if self.address.user and not self._token:
            request = rpc.AuthenticateRequest(name=self.address.user, password=self.address.secret())
            stub = rpc.AuthStub(self._connected())
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
            self._move(member)
        return StoreFailed(f"etcd {member}: {error.code().name}: {error.details()}")

    def _move(self, member: str) -> None:
        """Has the next call go to the next member, unless another failure has seen to that."""
        if member != self.member or len(self.address.members) == 1:
            return
        self._turn += 1
        channel, self._channel = self._channel, None
        if channel is not None:  # calls under way on it end by themselves
            self._closing.add(closing := asyncio.ensure_future(channel.close(grace=0.5)))
            closing.add_done_callback(self._closing.discard)


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys with a prefix.

    >>> prefix_end(b"/a/")
    b'/a0'
    """
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"
