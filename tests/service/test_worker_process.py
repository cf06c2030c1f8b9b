"""The worker processes' parts by themselves: what a worker says when it fails, and who a forwarded caller is."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from typing import Any

import grpc.aio
import pytest

from lbcore.access import Grant
from lbcore.delivery import XdsDelivery
from lbcore.service.binding import Binding
from lbcore.service.permission import current_permit
from lbcore.service.workers.forwarding import IDENTITY, ForwardedCallers
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

    server = grpc.aio.server(interceptors=(ForwardedCallers(lambda: grants),), options=[("grpc.so_reuseport", 0)])
    handlers = {"Call": grpc.unary_unary_rpc_method_handler(call)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("of.any.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        async with channel:
            metadata = [(IDENTITY, identity)] if identity else []
            await channel.unary_unary("/of.any.Service/Call")(b"", metadata=metadata, timeout=LIMIT)
    finally:
        await server.stop(None)
    (permit,) = found
    assert (permit if permit is None else permit.may("pick")) is permitted
