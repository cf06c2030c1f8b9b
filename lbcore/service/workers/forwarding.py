"""Calls that a worker does not serve itself, carried to the process that does, message by message, as bytes.

On the wire a unary call is a stream of one message, so one handler could carry them all; calls that are known to be
unary are carried by one of their own, at a fraction of the cost. Who the caller is, a worker alone can tell, since it
has the TLS: it says so in the metadata, over what the caller may have put there.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from lbcore.access import Grant, Permit, permit_of
from lbcore.errors import NotPermitted
from lbcore.service.permission import current_permit, permitted
from lbcore.service.proto import picker_pb2, registry_pb2

__all__ = ["ForwardedCallers", "Forwarding", "permit_of_forwarded"]

IDENTITY = "lbcore-identity"

_SERVICES = (
    *picker_pb2.DESCRIPTOR.services_by_name.values(),
    *registry_pb2.DESCRIPTOR.services_by_name.values(),
    *health_pb2.DESCRIPTOR.services_by_name.values(),
)
_UNARY = frozenset(
    f"/{service.full_name}/{method.name}"
    for service in _SERVICES
    for method in service.methods
    if not (method.client_streaming or method.server_streaming)
)


class Forwarding(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Carries every call that no other handler takes.

    Arguments:
        channel: to the process that answers.
        identity: whose call it is; empty where nobody needs to say.
    """

    def __init__(self, channel: grpc.aio.Channel, identity: Callable[[Any], str]) -> None:
        self._channel: Any = channel  # the stubs know no calls of bytes
        self._identity = identity
        self._unary = {method: self._carrying_one(method) for method in _UNARY}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        method = handler_call_details.method
        if of_one := self._unary.get(method):
            return of_one

        async def carry(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            await self._carry(method, requests, context)

        handler: Any = grpc.stream_stream_rpc_method_handler(carry)
        return handler  # type: ignore[no-any-return]

    def _carrying_one(self, method: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        ask = self._channel.unary_unary(method)

        async def carry(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            call = ask(request, metadata=self._said(context), timeout=context.time_remaining())
            try:
                response: bytes = await call
            except grpc.aio.AioRpcError as error:
                metadata: Any = error.trailing_metadata() or ()
                await context.abort(error.code(), error.details() or "", tuple(metadata))
            context.set_trailing_metadata(tuple(await call.trailing_metadata()))
            return response

        handler: Any = grpc.unary_unary_rpc_method_handler(carry)
        return handler  # type: ignore[no-any-return]

    async def _carry(
        self, method: str, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        call = self._channel.stream_stream(method)(metadata=self._said(context), timeout=context.time_remaining())
        sending = asyncio.ensure_future(_send(requests, call))
        try:
            async for response in call:
                await context.write(response)
            code, details, trailing = await call.code(), await call.details(), await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            code, details, trailing = error.code(), error.details(), error.trailing_metadata()
        finally:
            sending.cancel()
            call.cancel()
        metadata = tuple(trailing or ())
        if code is not grpc.StatusCode.OK:
            await context.abort(code, details or "", metadata)
        context.set_trailing_metadata(metadata)

    def _said(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> list[tuple[str, str | bytes]]:
        """What the caller has said beside the call, and who it is."""
        said = [(key, value) for key, value in context.invocation_metadata() or () if _may_pass(key)]
        if identity := self._identity(context):
            said.append((IDENTITY, identity))
        return said


async def _send(requests: AsyncIterator[bytes], call: Any) -> None:
    try:
        async for request in requests:
            await call.write(request)
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass  # it is over, and reading from it says why


def _may_pass(key: str) -> bool:
    return key != IDENTITY and not key.startswith(("grpc-", ":")) and key not in ("user-agent", "te", "content-type")


class ForwardedCallers(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """On the other side: permits what the caller may do, by the identity that the worker has proved."""

    def __init__(self, grants: Callable[[], tuple[Grant, ...]]) -> None:
        self._grants = grants

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        identity = next((value for key, value in details.invocation_metadata or () if key == IDENTITY), "")
        grants = self._grants()
        if handler is None or not grants:
            return handler
        return with_permit(handler, permit_of(str(identity), grants) or Permit(()))


def with_permit(handler: Any, permit: Permit) -> Any:
    """The same handler, for a caller who may do this."""
    arity = {False: "unary", True: "stream"}
    kind = f"{arity[handler.request_streaming]}_{arity[handler.response_streaming]}"
    behaviour = getattr(handler, kind)

    async def call(request: Any, context: Any) -> Any:
        with permitted(permit):
            return await behaviour(request, context)

    async def generate(request: Any, context: Any) -> AsyncIterator[Any]:
        with permitted(permit):
            async for each in behaviour(request, context):
                yield each

    return handler._replace(**{kind: generate if inspect.isasyncgenfunction(behaviour) else call})


def permit_of_forwarded(_context: Any) -> Permit | None:
    """What the caller of an xDS method may see. Raises `NotPermitted` where that is nothing."""
    permit = current_permit()
    if permit is not None and not permit.may("xds"):
        raise NotPermitted("xds is not granted")
    return permit
