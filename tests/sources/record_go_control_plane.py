"""Records the session of `control_plane_session` with a real go-control-plane, to recordings/go_control_plane.json.

    python -m tests.sources.record_go_control_plane BINARY "WHAT IT IS"

BINARY is go_control_plane.go, built. What is committed was recorded with go-control-plane v0.14.0 and its snapshot
cache, ads=false: with ads=true it does not answer a state-of-the-world client that asks for one of several assignments.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from tests.sources.control_plane_session import STEPS, VARIANTS, Told, Variant, as_json, follow
from tests.xds.clients import eventually

RECORDING = Path(__file__).with_name("recordings") / "go_control_plane.json"
ADS = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHODS: dict[Variant, tuple[str, Any, Any]] = {
    "grpc": ("StreamAggregatedResources", discovery_pb2.DiscoveryRequest, discovery_pb2.DiscoveryResponse),
    "delta_grpc": (
        "DeltaAggregatedResources",
        discovery_pb2.DeltaDiscoveryRequest,
        discovery_pb2.DeltaDiscoveryResponse,
    ),
}


class Between:
    """A server that passes everything on to another one, and lists the messages of each stream with their direction."""

    def __init__(self, variant: Variant) -> None:
        self.streams: list[list[tuple[str, Any]]] = []
        self._method, self._request, self._response = METHODS[variant]
        self._context: Any = None
        self._break = asyncio.Event()

    async def serve(self, to: str) -> tuple[grpc.aio.Server, str]:
        channel = grpc.aio.insecure_channel(to)
        onward: Any = channel.stream_stream(
            f"/{ADS}/{self._method}",
            request_serializer=self._request.SerializeToString,
            response_deserializer=self._response.FromString,
        )

        async def handle(_: Any, context: Any) -> None:
            self.streams.append(stream := [])
            self._break.clear()
            call = onward()

            async def up() -> None:
                while (message := await context.read()) is not grpc.aio.EOF:
                    stream.append(("request", as_json(message)))
                    await call.write(message)

            async def down() -> None:
                while (message := await call.read()) is not grpc.aio.EOF:
                    stream.append(("response", as_json(message)))
                    await context.write(message)

            passing = [asyncio.ensure_future(part) for part in (up(), down(), self._break.wait())]
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            for part in passing:
                part.cancel()
            call.cancel()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "broken")

        handler = grpc.stream_stream_rpc_method_handler(
            handle, self._request.FromString, lambda message: message.SerializeToString()
        )
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ADS, {self._method: handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, f"127.0.0.1:{port}"

    def break_it(self) -> None:
        self._break.set()


async def recorded(binary: str, variant: Variant) -> list[list[tuple[str, Any]]]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(binary, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    between = Between(variant)
    server, address = await between.serve((await process.stdout.readline()).decode().strip())
    told: Told = []

    async def briefly(_: float) -> None:
        await asyncio.sleep(1.0)

    following = asyncio.ensure_future(follow(address, variant, told, briefly))
    for state, expected in STEPS:
        if state is None:
            told.clear()
            between.break_it()
        else:
            process.stdin.write(json.dumps(state).encode() + b"\n")
            await process.stdin.drain()
            await process.stdout.readline()
        await eventually(lambda wanted=expected: told and matches(told[-1], wanted))  # type: ignore[misc]
        await asyncio.sleep(0.3)  # acknowledgements
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await server.stop(None)
    process.kill()
    await process.wait()
    return between.streams


def matches(told: list[str] | str, expected: list[str] | str) -> bool:
    """Whether this has been told; of a reason, its beginning."""
    return told.startswith(expected) if isinstance(told, str) and isinstance(expected, str) else told == expected


async def record(binary: str, what: str) -> None:
    sessions = {variant: await recorded(binary, variant) for variant in VARIANTS}
    RECORDING.write_text(json.dumps({"server": what, **sessions}, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1], sys.argv[2]))
