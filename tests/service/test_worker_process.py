"""The worker processes' parts by themselves: what a worker says when it fails, and who a forwarded caller is."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from lbcore.access import Grant
from lbcore.delivery import XdsDelivery
from lbcore.service.binding import Binding
from lbcore.service.permission import current_permit
from lbcore.service.workers.forwarding import IDENTITY, ForwardedCallers, Forwarding
from lbcore.service.workers.messages import Settings, Start, pack
from tests.harness.ports import free_port
from tests.harness.service import ROOT

LIMIT = 60.0  # seconds
FRONT = "spiffe://example.org/front"


def test_a_worker_that_is_told_nonsense_says_why_it_ends() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(LIMIT)
    argv = [sys.executable, "-m", "lbcore.service.workers.process", str(theirs.fileno())]
    worker = subprocess.Popen(argv, cwd=ROOT, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE, text=True)
    theirs.close()
    with ours, worker:
        try:
            settings = Settings(XdsDelivery(), None, ())
            ours.sendall(pack(Start(Binding("127.0.0.1", free_port()), "unix:/nobody", settings)))
            assert ours.recv(1), "it listens"
            ours.sendall(struct.pack("!Q", 7) + b"garbage")
            _, said = worker.communicate(timeout=LIMIT)
        finally:
            worker.kill()
    assert "a part of this worker has failed: it ends" in said
    assert "UnpicklingError" in said


@pytest.mark.parametrize(
    ("identity", "grants", "permitted"),
    [
        (FRONT, (), None),
        ("", (), None),
        (FRONT, (Grant(identity=FRONT, allow=("pick",)),), True),
        ("spiffe://example.org/other", (Grant(identity=FRONT, allow=("pick",)),), False),
        ("", (Grant(identity=FRONT, allow=("pick",)),), False),
    ],
)
async def test_a_forwarded_caller_may_what_is_granted_to_its_identity_and_without_one_nothing(
    identity: str, grants: tuple[Grant, ...], permitted: bool | None
) -> None:
    found: list[Any] = []

    async def call(_request: bytes, _context: Any) -> bytes:
        found.append(current_permit())
        return b""

    handler: Any = grpc.unary_unary_rpc_method_handler(call)
    handlers = grpc.method_handlers_generic_handler("of.any.Service", {"Call": handler})
    async with serving(handlers, ForwardedCallers(lambda: grants)) as address:
        channel: Any = grpc.aio.insecure_channel(address)
        async with channel:
            metadata = [(IDENTITY, identity)] if identity else []
            await channel.unary_unary("/of.any.Service/Call")(b"", metadata=metadata, timeout=LIMIT)
    (permit,) = found
    assert (permit if permit is None else permit.may("pick")) is permitted


@pytest.mark.parametrize("method", ["/lbcore.v1.Picker/Pick", "/lbcore.v1.Registry/Register", "/of.any.Service/Call"])
async def test_a_forwarded_call_is_as_one_without_the_detour(method: str) -> None:
    heard: list[dict[str, Any]] = []
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def call(request: bytes, context: Any) -> bytes:
        heard.append(dict(context.invocation_metadata()) | {"limit": context.time_remaining()})
        context.set_trailing_metadata((("end", "of it"),))
        if request == b"wrong":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing", (("why", "there is none"),))
        if request == b"long":
            begun.set()
            try:
                await asyncio.sleep(LIMIT)
            finally:
                cancelled.set()
        return request * 2

    _, service, name = method.split("/")
    async with AsyncExitStack() as running:
        handler: Any = grpc.unary_unary_rpc_method_handler(call)
        first = await running.enter_async_context(
            serving(grpc.method_handlers_generic_handler(service, {name: handler}))
        )
        to_first: Any = await running.enter_async_context(grpc.aio.insecure_channel(first))
        worker = await running.enter_async_context(serving(Forwarding(to_first, lambda _: FRONT)))
        to_worker: Any = await running.enter_async_context(grpc.aio.insecure_channel(worker))
        ask = to_worker.unary_unary(method)

        call_made = ask(b"ab", metadata=[("key", "value"), (IDENTITY, "a lie")], timeout=LIMIT)
        assert await call_made == b"abab"
        assert ("end", "of it") in list(await call_made.trailing_metadata())
        assert (heard[0]["key"], heard[0][IDENTITY]) == ("value", FRONT)
        assert 0 < heard[0]["limit"] < 2 * LIMIT, "gRPC rounds it"

        with pytest.raises(grpc.aio.AioRpcError) as wrong:
            await ask(b"wrong", timeout=LIMIT)
        assert (wrong.value.code(), wrong.value.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
        assert ("why", "there is none") in list(wrong.value.trailing_metadata())

        given_up = ask(b"long")
        await asyncio.wait_for(begun.wait(), LIMIT)
        given_up.cancel()
        await asyncio.wait_for(cancelled.wait(), LIMIT)


@asynccontextmanager
async def serving(handlers: Any, *interceptors: Any) -> AsyncIterator[str]:
    """A server of these; its address."""
    server = grpc.aio.server(interceptors=interceptors, options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
