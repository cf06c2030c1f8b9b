"""`RegistryClient`: what is registered, asked and changed from outside the agents that announced it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc

from lbcore.client.channel import open_channel
from lbcore.client.messages import DEFAULT_TARGET, DEFAULT_TIMEOUT, error_of
from lbcore.errors import LbError, NotReady, ServiceUnreachable, UnknownService
from lbcore.registration import Key, Registration
from lbcore.service.proto import registry_pb2 as pb
from lbcore.service.proto.registry_pb2_grpc import RegistryStub
from lbcore.service.registry_wire import key_message, registration_value
from lbcore.validation import number

__all__ = ["RegistryClient", "RegistryUpdate"]

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0  # seconds before a lost watch is resumed, doubling each time


@dataclass(frozen=True, slots=True)
class RegistryUpdate:
    """One message of a watch.

    Fields:
        revision: how far the watch has come.
        snapshot: whether `registrations` are all there are.
        registrations: those that are new or changed.
        removed: keys of those that are gone.
        stale: why all of it may be out of date; empty where it is not. An update comes when that begins and ends.
    """

    revision: int
    snapshot: bool
    registrations: tuple[Registration, ...]
    removed: tuple[Key, ...]
    stale: str = ""


class RegistryClient:
    """Asks the registry service at `target`; each call waits at most `timeout` seconds. Thread-safe.

    Every method raises `LbError`s: `ServiceUnreachable`, `RequestTimedOut`, `NotReady`, `RemoteFailure`.
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
        self._stub = RegistryStub(self._channel)

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def registrations(self, service: str = "") -> tuple[Registration, ...]:
        """What is registered now, of one service or of all, by service and address."""
        response = self._ask(self._stub.List, pb.ListRequest(service=service))
        return tuple(map(registration_value, response.registrations))

    def deregister(self, service: str, address: str) -> None:
        """Removes a registration under the lease that it has now; a newer one that comes meanwhile stays.

        Raises `UnknownService` where there is none.
        """
        found = self._find(service, address)
        response = self._ask(
            self._stub.Deregister, pb.DeregisterRequest(lease_id=found.lease, keys=[key_message(found.key)])
        )
        self._check(response, found)

    def drain(self, service: str, address: str, *, undo: bool = False) -> None:
        """Takes an endpoint out of rotation until its lease ends, or back in. Raises `UnknownService`."""
        found = self._find(service, address)
        response = self._ask(
            self._stub.Drain, pb.DrainRequest(lease_id=found.lease, key=key_message(found.key), undo=undo)
        )
        self._check(response, found)

    def watch(self, service: str = "") -> Iterator[RegistryUpdate]:
        """What is registered, and from then on whatever changes, for ever.

        Raises where the service cannot be reached at first. Later it goes on over a lost connection, where it ended or
        (when that is too long ago) with a snapshot.
        """
        request = pb.WatchRequest(service=service)
        ever, pause = False, _FIRST_WAIT
        while True:
            try:
                for message in self._stub.Watch(request):
                    request.epoch, request.revision = message.epoch, message.revision
                    ever, pause = True, _FIRST_WAIT
                    yield _update(message)
                ended: LbError = ServiceUnreachable(f"{self.target} ended the watch")
            except grpc.RpcError as error:
                ended = error_of(error, self.target, "registry")
            if not ever or not isinstance(ended, ServiceUnreachable | NotReady):
                raise ended
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_WAIT)

    def _find(self, service: str, address: str) -> Registration:
        for each in self.registrations(service):
            if each.endpoint.address == address:
                return each
        raise UnknownService(f"{address} of service {service!r}: not registered")

    def _check(self, response: pb.DeregisterResponse | pb.DrainResponse, found: Registration) -> None:
        if response.superseded:
            raise UnknownService(f"{found.endpoint.address} of service {found.service!r}: registered anew meanwhile")

    def _ask(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise error_of(error, self.target, "registry") from None


def _update(message: pb.WatchResponse) -> RegistryUpdate:
    return RegistryUpdate(
        revision=message.revision,
        snapshot=message.snapshot,
        registrations=tuple(map(registration_value, message.registrations)),
        removed=tuple(Key(each.service, each.address) for each in message.removed),
        stale=message.stale,
    )
