"""`AsyncPickerClient`: the picker service for asyncio. To be made and used in one event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from async_timeout import timeout as time_limit
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs lacks it

from lbcore.client.batch import Batch, Picks, Table, stream_key, stream_requests
from lbcore.client.channel import open_aio_channel
from lbcore.client.messages import (
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT,
    EndpointsUpdate,
    Exclude,
    Key,
    ServiceStatus,
    View,
    error_of,
    explain_request,
    pick_request,
    report_request,
    services_of,
)
from lbcore.client.watch import WatchState
from lbcore.errors import LbError, NotReady, RequestTimedOut, ServiceUnreachable
from lbcore.explanation import Explanation
from lbcore.model import Endpoint, LoadReport, Locality
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.proto.picker_pb2_grpc import PickerStub
from lbcore.service.wire import endpoint_value, explanation_value, seconds
from lbcore.validation import number

if TYPE_CHECKING:
    from lbcore.client.batch import Keys
    from lbcore.service.proto.picker_pb2_grpc import PickerAsyncStub

__all__ = ["AsyncPickerClient", "AsyncRemoteLease"]

logger = logging.getLogger(__name__)

Q = TypeVar("Q")
A = TypeVar("A")


class AsyncPickerClient:
    """Asks the picker service at `target`; each call waits at most `timeout` seconds.

    Every method raises what those of `PickerClient` do.

        async with AsyncPickerClient("127.0.0.1:18000") as picker:
            endpoint = await picker.pick("web", "user-17")
            async with picker.acquire("web") as endpoint:
                await send_a_request_to(endpoint.address)
            picks = await picker.pick_many("web", ["user-1", "user-2"])
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.target = target
        self.timeout = number(timeout, "timeout", 0.0, above=True)
        self._channel = open_aio_channel(target, credentials)
        self.stub: PickerAsyncStub = PickerStub(self._channel)
        self._streams: dict[bytes, _Stream] = {}

    async def __aenter__(self) -> AsyncPickerClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends its streams and the connection. Leases stay as they are: they can no longer be reported, and expire."""
        for stream in self._streams.values():
            stream.close()
        await self._channel.close(grace=None)

    async def pick(
        self,
        service: str,
        key: Key = None,
        *,
        exclude: Exclude = (),
        subset: Mapping[str, Any] | None = None,
        local_locality: Locality | str | None = None,
    ) -> Endpoint:
        """The endpoint for one request.

        Args:
            key: text or bytes to hash, or the 64-bit hash itself.
            exclude: an endpoint or an address not to pick, or several: those that have failed before this retry.
            subset: metadata of the endpoints that may serve, for services that have subsets.
            local_locality: where the request comes from, for services that route by zone.
        """
        request = pick_request(service, key, exclude, View(subset, local_locality))
        return endpoint_value((await self.ask(self.stub.Pick, request)).endpoints[0])

    async def rank(
        self,
        service: str,
        key: Key,
        count: int,
        *,
        exclude: Exclude = (),
        subset: Mapping[str, Any] | None = None,
        local_locality: Locality | str | None = None,
    ) -> list[Endpoint]:
        """The pick and then its fallbacks in order: up to `count` distinct endpoints, 1 to 1024."""
        request = pick_request(service, key, exclude, View(subset, local_locality), count=count)
        response = await self.ask(self.stub.Pick, request)
        return [endpoint_value(each) for each in response.endpoints]

    def acquire(
        self,
        service: str,
        key: Key = None,
        *,
        exclude: Exclude = (),
        subset: Mapping[str, Any] | None = None,
        local_locality: Locality | str | None = None,
        ttl: float = 30.0,
    ) -> _Acquiring:
        """The endpoint for one request, which counts as active until it is done or `ttl` seconds (to 3600) are over.

        `async with picker.acquire(...) as endpoint:`, or `lease = await picker.acquire(...)`.
        """
        request = pick_request(service, key, exclude, View(subset, local_locality), ttl=ttl)
        return _Acquiring(self, request)

    async def explain(
        self,
        service: str,
        key: Key = None,
        *,
        subset: Mapping[str, Any] | None = None,
        local_locality: Locality | str | None = None,
    ) -> Explanation:
        """Why a pick goes where it goes. Nothing changes by it: the next pick gives the `winner`."""
        request = explain_request(service, key, View(subset, local_locality))
        return explanation_value(await self.ask(self.stub.Explain, request))

    async def pick_many(
        self,
        service: str,
        keys: Keys,
        *,
        subset: Mapping[str, Any] | None = None,
        local_locality: Locality | str | None = None,
    ) -> Picks:
        """Many picks at once: `keys` is an array of 64-bit hashes, a sequence of text or bytes, or just a number.

        A stream to the service stays open for each service and subset, and with it the endpoint table, which is sent
        only when it changed. Calls for one of them take turns.
        """
        requests = stream_requests(service, keys, View(subset, local_locality))
        key = stream_key(requests)
        while True:
            stream = self._streams.get(key)
            fresh = stream is None
            if stream is None:
                stream = self._streams[key] = _Stream(self.stub, self.target)
            try:
                return await stream.exchange(requests, self.timeout)
            except (ServiceUnreachable, NotReady):
                self._drop(key, stream)
                # A stream that stood idle while the service restarted breaks only now, and the picks are asked anew.
                if fresh:
                    raise
            except BaseException:
                self._drop(key, stream)
                raise

    async def endpoints(self, service: str = "") -> tuple[ServiceStatus, ...]:
        """The endpoints and their state, of one service or (without a name) of all, by name."""
        response = await self.ask(self.stub.ListEndpoints, pb.ListEndpointsRequest(service=service))
        return services_of(response.services)

    async def watch(self, service: str = "") -> AsyncIterator[EndpointsUpdate]:
        """The same, and from then on whatever changes, for ever.

        Raises where the service cannot be reached at first. Later it goes on over a lost connection: the first update
        after it has all services again.
        """
        state = WatchState()
        while True:
            try:
                async for message in self.stub.WatchEndpoints(pb.WatchEndpointsRequest(service=service)):
                    yield state.received(message)
                ended: LbError = ServiceUnreachable(f"{self.target} ended the watch")
            except grpc.RpcError as error:
                ended = error_of(error, self.target)
            await asyncio.sleep(state.broken(ended))

    async def report(
        self, lease_id: int, ok: bool, *, status: int | str | None, latency: float, load: LoadReport | None
    ) -> bool:
        """Reports how the request under a lease ended; False where the service no longer held the lease."""
        request = report_request(lease_id, ok, status=status, latency=latency, load=load)
        return not (await self.ask(self.stub.Report, request)).unknown_lease_ids

    async def ask(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        """One unary call. Raises the documented error for a status."""
        try:
            return await method(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise error_of(error, self.target) from None

    def _drop(self, key: bytes, stream: _Stream) -> None:
        if self._streams.get(key) is stream:
            del self._streams[key]
        stream.close()


class AsyncRemoteLease:
    """A request in flight, from `AsyncPickerClient.acquire`; `endpoint` is where it goes."""

    def __init__(self, client: AsyncPickerClient, response: pb.PickResponse) -> None:
        self.endpoint = endpoint_value(response.endpoints[0])
        self.id = response.lease.id
        self.ttl = seconds(response.lease.ttl)
        self._client = client
        self._begun = time.monotonic()
        self._done = False

    async def done(
        self,
        ok: bool = True,
        *,
        status: int | str | None = None,
        latency: float | None = None,
        load: LoadReport | None = None,
    ) -> bool:
        """Reports how the request ended, as `RemoteLease.done`; later calls do nothing."""
        if self._done:
            return True
        self._done = True
        latency = time.monotonic() - self._begun if latency is None else latency
        return await self._client.report(self.id, ok, status=status, latency=latency, load=load)


class _Acquiring:
    """A lease about to be taken: await it for the lease, or enter it for the endpoint."""

    def __init__(self, client: AsyncPickerClient, request: pb.PickRequest) -> None:
        self._client = client
        self._request = request
        self._lease: AsyncRemoteLease | None = None

    def __await__(self) -> Generator[Any, None, AsyncRemoteLease]:
        return self._acquire().__await__()

    async def _acquire(self) -> AsyncRemoteLease:
        return AsyncRemoteLease(self._client, await self._client.ask(self._client.stub.Pick, self._request))

    async def __aenter__(self) -> Endpoint:
        self._lease = await self._acquire()
        return self._lease.endpoint

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is None:
            return
        try:
            await self._lease.done(kind is None)
        except LbError as failure:
            # The request itself has ended as it has; the lease expires by itself.
            logger.warning("lease on %s not reported: %s", self._lease.endpoint.address, failure)


class _Stream:
    """An open `PickStream` for one service."""

    def __init__(self, stub: PickerAsyncStub, target: str) -> None:
        self._target = target
        self._table = Table()
        self._turn = asyncio.Lock()
        self._call: Any = stub.PickStream()  # type: ignore[call-arg]  # grpc-stubs knows only the form with an iterator

    async def exchange(self, requests: list[pb.PickStreamRequest], timeout: float) -> Picks:
        async with self._turn:
            try:
                async with time_limit(timeout):
                    return await self._exchange(Batch(requests, self._table))
            except asyncio.TimeoutError:
                raise RequestTimedOut(f"{self._target} did not answer within {timeout:g} s") from None
            except grpc.RpcError as error:
                raise error_of(error, self._target) from None

    async def _exchange(self, batch: Batch) -> Picks:
        while not batch.done:
            try:
                for request in batch.to_send():
                    await self._call.write(request)
            except asyncio.InvalidStateError:
                pass  # the call has ended already; reading says how
            response = await self._call.read()
            if response is EOF:
                raise ServiceUnreachable(f"{self._target} ended the stream")
            batch.received(response)
        return batch.picks()

    def close(self) -> None:
        self._call.cancel()
