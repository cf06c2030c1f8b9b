"""`lbcore.v1.Registry`: announcements over gRPC. The service's comments in registry.proto say what each method does.

Whatever store is behind it (`lbcore.registry`), a request is checked in full before it reaches the store, and answered
once the store has kept it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import NamedTuple

import grpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs lacks it

from lbcore.errors import InvalidSetting, LbError, UnknownLease
from lbcore.registration import Registration
from lbcore.registry.feed import Update
from lbcore.registry.registry import Beat, Registry
from lbcore.registry.table import Written
from lbcore.service.methods import Stream, StreamSet, unary_async
from lbcore.service.permission import check_announcements, check_keys, sees
from lbcore.service.proto import registry_pb2 as pb
from lbcore.service.registry_wire import (
    announcement_values,
    key_message,
    key_values,
    registration_message,
    report_values,
    sequence_value,
    ttl_value,
)
from lbcore.service.wire import duration, parse

__all__ = ["SERVICE_NAME", "RegistryService"]

_WINDOW = 256  # messages of a stream that are begun before the first of them is answered

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Registry"].full_name


class _Begun(NamedTuple):
    """What a message of a stream asks for, under way: what will have come of it, or why it was refused."""

    lease: int
    written: Awaitable[Written] | LbError


class RegistryService:
    """The methods of the registry service."""

    def __init__(self, registry: Registry) -> None:
        self.streams = StreamSet()
        self._registry = registry

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service."""
        handlers = {
            "Register": unary_async(self.register),
            "Heartbeat": self.streams.stream_stream(self.heartbeat),
            "Deregister": unary_async(self.deregister),
            "Drain": unary_async(self.drain),
            "List": unary_async(self.list),
            "Watch": self.streams.unary_stream(self.watch),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))

    async def register(self, data: bytes) -> bytes:
        """Answers a `RegisterRequest`. Raises `LbError`s."""
        request = parse(pb.RegisterRequest, data)
        announcements = announcement_values(request.announcements)
        check_announcements(announcements)
        sequence = sequence_value(request)
        written = await self._registry.register(request.lease_id, ttl_value(request), announcements, sequence)
        response = pb.RegisterResponse(
            lease_id=written.lease,
            ttl=duration(written.ttl),
            revision=self._registry.revision,
            superseded=map(key_message, written.superseded),
        )
        return response.SerializeToString()

    async def heartbeat(self, stream: Stream) -> None:
        """Answers each `HeartbeatRequest` of a stream, in order. Raises `LbError`s."""
        begun: asyncio.Queue[_Begun | None] = asyncio.Queue()
        room = asyncio.Semaphore(_WINDOW)
        reading = asyncio.ensure_future(self._read(stream, begun, room))
        try:
            while (each := await begun.get()) is not None:
                await stream.write(await self._answer(each))
                room.release()
        finally:
            reading.cancel()
            while not begun.empty():
                if (each := begun.get_nowait()) is not None and isinstance(each.written, asyncio.Task):
                    each.written.cancel()

    async def _read(self, stream: Stream, begun: asyncio.Queue[_Begun | None], room: asyncio.Semaphore) -> None:
        """Begins what each message asks for, without waiting until the one before is kept."""
        try:
            while (data := await stream.read()) is not EOF:
                await room.acquire()
                begun.put_nowait(self._begin(data))
        finally:
            begun.put_nowait(None)

    def _begin(self, data: bytes) -> _Begun:
        lease = 0
        try:
            request = parse(pb.HeartbeatRequest, data)
            lease = request.lease_id
            beat = Beat(
                lease=lease,
                ttl=ttl_value(request),
                announcements=announcement_values(request.announcements),
                withdrawals=key_values(request.withdrawals, "withdrawals"),
                reports=report_values(request.reports),
                sequence=sequence_value(request),
            )
            check_announcements(beat.announcements)
            check_keys(beat.withdrawals)
            return _Begun(lease, self._registry.begin(beat))
        except LbError as wrong:  # to be told in its turn
            return _Begun(lease, wrong)

    async def _answer(self, begun: _Begun) -> bytes:
        try:
            if isinstance(begun.written, LbError):
                raise begun.written
            written = await begun.written
        except UnknownLease:
            return pb.HeartbeatResponse(lease_id=begun.lease, lease_unknown=True).SerializeToString()
        response = pb.HeartbeatResponse(
            lease_id=written.lease,
            ttl=duration(written.ttl),
            revision=self._registry.revision,
            superseded=map(key_message, written.superseded),
        )
        return response.SerializeToString()

    async def deregister(self, data: bytes) -> bytes:
        """Answers a `DeregisterRequest`. Raises `LbError`s."""
        request = parse(pb.DeregisterRequest, data)
        keys = key_values(request.keys)
        check_keys(keys)
        if request.all == bool(keys):
            raise InvalidSetting("keys: expected one or more, or all instead of them")
        if request.all:
            written = await self._registry.revoke(request.lease_id)
        else:
            written = await self._registry.deregister(request.lease_id, keys, sequence_value(request))
        response = pb.DeregisterResponse(
            revision=self._registry.revision, superseded=map(key_message, written.superseded)
        )
        return response.SerializeToString()

    async def drain(self, data: bytes) -> bytes:
        """Answers a `DrainRequest`. Raises `LbError`s."""
        request = parse(pb.DrainRequest, data)
        [key] = key_values([request.key], "key")
        check_keys([key])
        written = await self._registry.drain(request.lease_id, key, not request.undo)
        response = pb.DrainResponse(revision=self._registry.revision, superseded=map(key_message, written.superseded))
        return response.SerializeToString()

    async def list(self, data: bytes) -> bytes:
        """Answers a `ListRequest`. Raises `LbError`s."""
        request = parse(pb.ListRequest, data)
        response = pb.ListResponse(
            registrations=_messages(_visible(self._registry.registrations(request.service))),
            revision=self._registry.revision,
            epoch=self._registry.epoch,
            stale=self._registry.stale,
        )
        return response.SerializeToString()

    async def watch(self, data: bytes, stream: Stream) -> None:
        """Writes `WatchResponse`s. Raises `LbError`s."""
        request = parse(pb.WatchRequest, data)
        async for update in self._registry.watch(request.service, request.epoch, request.revision):
            await stream.write(_watch_response(update).SerializeToString())


def _visible(registrations: Iterable[Registration]) -> Iterable[Registration]:
    """Those that the caller may see."""
    return (each for each in registrations if sees(each.service, "register"))


def _messages(registrations: Iterable[Registration]) -> Iterable[pb.Registration]:
    return map(registration_message, sorted(registrations, key=lambda each: each.key))


def _watch_response(update: Update) -> pb.WatchResponse:
    response = pb.WatchResponse(
        revision=update.revision, epoch=update.epoch, snapshot=update.snapshot is not None, stale=update.stale
    )
    for registration in _visible(update.snapshot or ()):
        response.registrations.append(registration_message(registration))
    for change in update.changes:
        if not sees(change.key.service, "register"):
            continue
        if change.registration is None:
            response.removed.append(key_message(change.key))
        else:
            response.registrations.append(registration_message(change.registration))
    return response
