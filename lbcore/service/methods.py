"""What the gRPC methods of lbcore's own services share: errors become statuses here, and streams end here on a drain.

Handlers take and give bytes: a message that does not parse is then an error like any other (grpc's own answer would be
INTERNAL and a traceback), and what is served again and again is serialised once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from lbcore.errors import (
    InvalidSetting,
    LbError,
    NoEndpointAvailable,
    NotPermitted,
    NotReady,
    Overloaded,
    StoreFailed,
    UnknownLease,
    UnknownService,
)
from lbcore.service.wire import NO_ENDPOINT, NOT_READY, REASON, STORE_FAILED, UNKNOWN_LEASE

if TYPE_CHECKING:
    from typing import TypeAlias

    Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]

__all__ = ["Stream", "StreamSet", "unary", "unary_async"]

_STATUS: tuple[tuple[type[LbError], grpc.StatusCode], ...] = (
    (InvalidSetting, grpc.StatusCode.INVALID_ARGUMENT),
    (UnknownService, grpc.StatusCode.NOT_FOUND),
    (UnknownLease, grpc.StatusCode.NOT_FOUND),
    (NoEndpointAvailable, grpc.StatusCode.UNAVAILABLE),
    (StoreFailed, grpc.StatusCode.UNAVAILABLE),
    (NotReady, grpc.StatusCode.UNAVAILABLE),
    (NotPermitted, grpc.StatusCode.PERMISSION_DENIED),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
)
_REASON = {
    NoEndpointAvailable: NO_ENDPOINT,
    NotReady: NOT_READY,
    StoreFailed: STORE_FAILED,
    UnknownLease: UNKNOWN_LEASE,
}
_DRAINING = "draining: this server is about to stop"
_MAX_DETAILS = 1000  # characters; with more than 8 KiB of trailing metadata grpc loses the status


def unary(answer: Callable[[bytes], bytes]) -> grpc.RpcMethodHandler[bytes, bytes]:
    """A unary method from a function of bytes to bytes that raises `LbError`s."""

    async def handle(data: bytes, context: Context) -> bytes:
        try:
            return answer(data)
        except LbError as error:
            await _refuse(context, error)

    return _typed(grpc.unary_unary_rpc_method_handler(handle))


def unary_async(answer: Callable[[bytes], Awaitable[bytes]]) -> grpc.RpcMethodHandler[bytes, bytes]:
    """As `unary`, from a function that waits for something before it answers."""

    async def handle(data: bytes, context: Context) -> bytes:
        try:
            return await answer(data)
        except LbError as error:
            await _refuse(context, error)

    return _typed(grpc.unary_unary_rpc_method_handler(handle))


class Stream:
    """The server's end of an open stream."""

    __slots__ = ("_context", "_set", "_writing", "read", "task")

    def __init__(self, context: Context, among: StreamSet) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.read = context.read
        self._context = context
        self._set = among
        self._writing = False

    async def write(self, message: bytes) -> None:
        """Sends a message. Raises `NotReady` after it when a drain has begun."""
        self._writing = True
        await self._context.write(message)
        self._writing = False
        if self._set.draining:
            raise NotReady(_DRAINING)

    def drain(self) -> None:
        """Ends the stream: at once, or after the message that is being sent (grpc cannot end it in the middle)."""
        if not self._writing:
            self.task.cancel()


class StreamSet:
    """The streams that are open, so that a drain can end them at once rather than wait for their clients."""

    def __init__(self) -> None:
        self.draining = False
        self._streams: set[Stream] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def unary_stream(self, serve: Callable[[bytes, Stream], Awaitable[None]]) -> grpc.RpcMethodHandler[bytes, bytes]:
        """A method that writes what it has to say to one request."""

        async def handle(data: bytes, context: Context) -> None:
            stream = Stream(context, self)
            await self._until_drained(stream, serve(data, stream), context)

        return _typed(grpc.unary_stream_rpc_method_handler(handle))

    def stream_stream(self, serve: Callable[[Stream], Awaitable[None]]) -> grpc.RpcMethodHandler[bytes, bytes]:
        """A method that reads requests and writes answers."""

        async def handle(_: object, context: Context) -> None:
            stream = Stream(context, self)
            await self._until_drained(stream, serve(stream), context)

        return _typed(grpc.stream_stream_rpc_method_handler(handle))

    def drain(self) -> None:
        """Ends every stream with UNAVAILABLE, which tells a client to go elsewhere, and refuses new ones."""
        self.draining = True
        for stream in self._streams:
            stream.drain()

    async def _until_drained(self, stream: Stream, serving: Awaitable[None], context: Context) -> None:
        self._streams.add(stream)
        try:
            if self.draining:
                stream.drain()
            await serving
        except LbError as error:
            await _refuse(context, error)
        except asyncio.CancelledError:
            if not self.draining:
                raise
            await _refuse(context, NotReady(_DRAINING))
        finally:
            self._streams.discard(stream)


async def _refuse(context: Context, error: LbError) -> NoReturn:
    """Ends the call with the status that stands for the error."""
    for kind, code in _STATUS:
        if isinstance(error, kind):
            reason = _REASON.get(kind)
            await context.abort(code, str(error)[:_MAX_DETAILS], ((REASON, reason),) if reason else ())
    raise error


def _typed(handler: Any) -> grpc.RpcMethodHandler[bytes, bytes]:
    result: grpc.RpcMethodHandler[bytes, bytes] = handler
    return result
