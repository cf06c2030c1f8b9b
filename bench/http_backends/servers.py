"""The backends, in a process of their own: HTTP servers that serve one queue each, in the order of arrival.

`python -m bench.http_backends.servers SPEED...` starts one for each speed on free ports of the loopback and prints
these; a speed of 0 answers 503 at once. A request's header `x-work` says for how many seconds a server of speed 1 is
at it; the answer's header `x-rif` how many more requests the server has.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import uvloop
from aiohttp import web


class Backend:
    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.in_flight = 0
        self.worker = asyncio.Semaphore(1)

    async def answer(self, work: float) -> web.Response:
        if self.speed == 0.0:
            return web.Response(status=503, headers={"x-rif": "0"})
        self.in_flight += 1
        try:
            async with self.worker:
                await asyncio.sleep(work / self.speed)
        finally:
            self.in_flight -= 1
        return web.Response(headers={"x-rif": str(self.in_flight)})


async def serve(speeds: list[float]) -> None:
    backends: dict[int, Backend] = {}

    async def handle(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        port = request.transport.get_extra_info("sockname")[1]
        return await backends[port].answer(float(request.headers.get("x-work", "0")))

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    for speed in speeds:
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        backends[listening.getsockname()[1]] = Backend(speed)
        await web.SockSite(runner, listening).start()
    print(*backends, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve([float(speed) for speed in sys.argv[1:]]))
