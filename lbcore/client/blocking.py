"""`PickerClient`: the picker service for threads. Thread-safe; one client is meant to serve a whole process."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from lbcore.client.batch import Batch, Picks, Table, stream_key, stream_requests
from lbcore.client.channel import open_channel
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

__all__ = ["PickerClient", "RemoteLease"]

logger = logging.getLogger(__name__)

Q = TypeVar("Q")
A = TypeVar("A")

_WATCHDOG_PERIOD = 0.1  # seconds between two looks at the streams' deadlines


class PickerClient:
    """Asks the picker service at `target`; each call waits at most `timeout` seconds.

    Every method raises, all of them `LbError`s: `UnknownService`, `NoEndpointAvailable` (saying why), `InvalidSetting`
    (naming the field), `ServiceUnreachable`, `NotReady`, `Overloaded`, `RequestTimedOut`, `RemoteFailure`.

        with PickerClient("127.0.0.1:18000") as picker:
            endpoint = picker.pick("web", "user-17")
            with picker.acquire("web") as endpoint:
                send_a_request_to(endpoint.address)
            picks = picker.pick_many("web", ["user-1", "user-2"])
            picks[0].address, picks.indices
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
        self._channel = open_channel(target, credentials)
        self._stub = PickerStub(self._channel)
        self._streams: dict[bytes, _Stream] = {}
        self._streams_lock = threading.Lock()
        self._watchdog: threading.Thread | None = None
        self._closed = threading.Event()

    def __enter__(self) -> PickerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends its streams and the connection. Leases stay as they are: they can no longer be reported, and expire."""
        self._closed.set()
        with self._streams_lock:
            for stream in self._streams.values():
                stream.close()
        self._channel.close()

    def pick(
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
        return endpoint_value(self._ask(self._stub.Pick, request).endpoints[0])

    def rank(
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
        response = self._ask(self._stub.Pick, request)
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
    ) -> RemoteLease:
        """The endpoint for one request, which counts as active until it is done or `ttl` seconds (to 3600) are over."""
        request = pick_request(service, key, exclude, View(subset, local_locality), ttl=ttl)
        return RemoteLease(self, self._ask(self._stub.Pick, request))

    def explain(
        self,
        service: str,
        key: Key = None,
        *,
        subset: Mapping[str, Any] | None = None,
        local_locality: Locality | str | None = None,
    ) -> Explanation:
        """Why a pick goes where it goes. Nothing changes by it: the next pick gives the `winner`."""
        request = explain_request(service, key, View(subset, local_locality))
        return explanation_value(self._ask(self._stub.Explain, request))

    def pick_many(
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
        while True:
            stream, fresh = self._stream(stream_key(requests))
            try:
                return stream.exchange(requests, self.timeout)
            except (ServiceUnreachable, NotReady):
                self._drop(stream)
                # A stream that stood idle while the service restarted breaks only now, and the picks are asked anew.
                if fresh:
                    raise
            except BaseException:
                self._drop(stream)
                raise

    def endpoints(self, service: str = "") -> tuple[ServiceStatus, ...]:
        """The endpoints and their state, of one service or (without a name) of all, by name."""
        response = self._ask(self._stub.ListEndpoints, pb.ListEndpointsRequest(service=service))
        return services_of(response.services)

    def watch(self, service: str = "") -> Iterator[EndpointsUpdate]:
        """The same, and from then on whatever changes, for ever.

        Raises where the service cannot be reached at first. Later it goes on over a lost connection: the first update
        after it has all services again.
        """
        state = WatchState()
        while not self._closed.is_set():
            try:
                for message in self._stub.WatchEndpoints(pb.WatchEndpointsRequest(service=service)):
                    yield state.received(message)
                ended: LbError = ServiceUnreachable(f"{self.target} ended the watch")
            except grpc.RpcError as error:
                if self._closed.is_set():
                    return
                ended = error_of(error, self.target)
            self._closed.wait(state.broken(ended))

    def report(
        self, lease_id: int, ok: bool, *, status: int | str | None, latency: float, load: LoadReport | None
    ) -> bool:
        """Reports how the request under a lease ended; False where the service no longer held the lease."""
        request = report_request(lease_id, ok, status=status, latency=latency, load=load)
        return not self._ask(self._stub.Report, request).unknown_lease_ids

    def _ask(self, method: grpc.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        try:
            return method(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise error_of(error, self.target) from None

    def _stream(self, key: bytes) -> tuple[_Stream, bool]:
        """The open stream of a service or subset, and whether it has just been opened."""
        with self._streams_lock:
            if self._watchdog is None:
                self._watchdog = threading.Thread(target=self._end_late, name="lbcore-pick-deadlines", daemon=True)
                self._watchdog.start()
            stream = self._streams.get(key)
            if stream is not None:
                return stream, False
            stream = self._streams[key] = _Stream(self._stub, key, self.target)
            return stream, True

    def _drop(self, stream: _Stream) -> None:
        with self._streams_lock:
            if self._streams.get(stream.key) is stream:
                del self._streams[stream.key]
        stream.close()

    def _end_late(self) -> None:
        """Ends the streams that keep a caller waiting too long: a read from a blocking stream has no time limit."""
        while not self._closed.wait(_WATCHDOG_PERIOD):
            with self._streams_lock:
                streams = list(self._streams.values())
            for stream in streams:
                stream.end_if_late()


class RemoteLease:
    """A request in flight, from `PickerClient.acquire`; `endpoint` is where it goes.

    Use it as a context manager, which gives the endpoint and takes an exception for a failure, or call `done`.
    """

    def __init__(self, client: PickerClient, response: pb.PickResponse) -> None:
        self.endpoint = endpoint_value(response.endpoints[0])
        self.id = response.lease.id
        self.ttl = seconds(response.lease.ttl)
        self._client = client
        self._begun = time.monotonic()
        self._done = False

    def done(
        self,
        ok: bool = True,
        *,
        status: int | str | None = None,
        latency: float | None = None,
        load: LoadReport | None = None,
    ) -> bool:
        """Reports how the request ended; later calls do nothing. False where the lease had expired.

        Args:
            ok: whether the endpoint served it.
            status: an HTTP status or the name of a gRPC code.
            latency: seconds it took; None: since the lease was granted.
            load: what the server said of its load.
        """
        if self._done:
            return True
        self._done = True
        latency = time.monotonic() - self._begun if latency is None else latency
        return self._client.report(self.id, ok, status=status, latency=latency, load=load)

    def __enter__(self) -> Endpoint:
        return self.endpoint

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.done(kind is None)
        except LbError as failure:
            # The request itself has ended as it has; the lease expires by itself.
            logger.warning("lease on %s not reported: %s", self.endpoint.address, failure)


class _Stream:
    """An open `PickStream` for one service."""

    def __init__(self, stub: PickerStub, key: bytes, target: str) -> None:
        self.key = key
        self._target = target
        self._table = Table()
        self._turn = threading.Lock()
        self._late_at = math.inf
        self._late = False
        self._requests: queue.SimpleQueue[pb.PickStreamRequest | None] = queue.SimpleQueue()
        self._call: Any = stub.PickStream(iter(self._requests.get, None))  # grpc-stubs has no half of its methods
        self._answers: Iterator[pb.PickStreamResponse] = iter(self._call)

    def exchange(self, requests: list[pb.PickStreamRequest], timeout: float) -> Picks:
        with self._turn:
            batch = Batch(requests, self._table)
            self._late_at = time.monotonic() + timeout
            try:
                while not batch.done:
                    for request in batch.to_send():
                        self._requests.put(request)
                    batch.received(next(self._answers))
            except StopIteration:
                raise ServiceUnreachable(f"{self._target} ended the stream") from None
            except grpc.RpcError as error:
                if self._late:
                    raise RequestTimedOut(f"{self._target} did not answer within {timeout:g} s") from None
                raise error_of(error, self._target) from None
            finally:
                self._late_at = math.inf
            return batch.picks()

    def end_if_late(self) -> None:
        if time.monotonic() > self._late_at:
            self._late = True
            self._call.cancel()

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()
