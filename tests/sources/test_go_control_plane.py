"""A real go-control-plane, as recorded: the xDS source says to it what it said then, and tells the same."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.json_format import ParseDict

from tests.sources.control_plane_session import STEPS, VARIANTS, Told, Variant, as_json, follow
from tests.sources.record_go_control_plane import ADS, METHODS, RECORDING, matches

TIME_LIMIT = 30.0


class Replay:
    """Answers a stream as it was answered then, each response after the requests that came before it."""

    def __init__(self, variant: Variant, streams: list[list[tuple[str, Any]]]) -> None:
        self._streams = iter(streams)
        self._method, self._request, self._response = METHODS[variant]
        self.ended = asyncio.Event()
        self.differs: Any = None

    async def serve(self) -> tuple[grpc.aio.Server, str]:
        handler = grpc.stream_stream_rpc_method_handler(
            self._handle, self._request.FromString, lambda message: message.SerializeToString()
        )
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ADS, {self._method: handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, f"127.0.0.1:{port}"

    async def _handle(self, _: Any, context: Any) -> None:
        stream = next(self._streams, None)
        for direction, message in stream or ():
            if direction == "response":
                await context.write(ParseDict(message, self._response()))
                continue
            received = as_json(await asyncio.wait_for(context.read(), TIME_LIMIT))
            if received != message:
                self.differs = {"said": received, "then": message}
                self.ended.set()
                break
        if stream is None or self.differs:
            await asyncio.Event().wait()
        if not (following := next(self._streams, None)):
            self.ended.set()
            await asyncio.Event().wait()
        self._streams = iter([following, *self._streams])
        await context.abort(grpc.StatusCode.UNAVAILABLE, "broken")


@pytest.mark.parametrize("variant", VARIANTS)
async def test_what_was_said_to_it_is_said_again_and_the_same_is_told(variant: Variant) -> None:
    replay = Replay(variant, json.loads(RECORDING.read_text())[variant])
    server, address = await replay.serve()
    told: Told = []

    async def briefly(_: float) -> None:
        await asyncio.sleep(0.5)

    following = asyncio.ensure_future(follow(address, variant, told, briefly))
    try:
        await asyncio.wait_for(replay.ended.wait(), TIME_LIMIT)
        assert replay.differs is None
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await server.stop(None)
    wanted = [expected for _, expected in STEPS]
    for one in told:  # each step's in turn, what was told again or in between passed over
        if wanted and matches(one, wanted[0]):
            while wanted and matches(one, wanted[0]):
                wanted.pop(0)
    assert wanted == [], told
