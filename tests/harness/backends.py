"""Real HTTP/1.1 servers that answer who they are. A hundred of them cost one thread and a hundred sockets.

An answer carries the backend's address, as lbcore writes it, in its body and in the header `x-backend`. The answer to
`/held` begins at once and ends only when whoever asked goes away: a request stays in flight for as long as wanted.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from aiohttp import web

__all__ = ["HttpBackends"]

Result = TypeVar("Result")
_HELD_POLL = 0.05  # seconds


@dataclass
class Behaviour:
    """How a backend answers: after `delay` seconds, with `status` and `headers`."""

    status: int = 200
    delay: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpBackends:
    """Backends on the given hosts: an IP for a free port on it, `IP:PORT` or `[IPv6]:PORT`, or `unix:/path`.

    A context manager. `addresses` are theirs in the order of the hosts; `hits` counts the requests of each, `asked` has
    the headers of its last one, and what they answer may be changed while they run.
    """

    def __init__(self, hosts: Iterable[str] = ("127.0.0.1",)) -> None:
        self._hosts = list(hosts)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="backends", daemon=True)
        self._sites: dict[str, web.BaseSite] = {}
        self._behaviour: dict[str, Behaviour] = {}
        self._runner: web.AppRunner | None = None
        self.hits: Counter[str] = Counter()
        self.asked: dict[str, Mapping[str, str]] = {}
        self.addresses: list[str] = []

    def __enter__(self) -> HttpBackends:
        self._thread.start()
        try:
            self.addresses = self._run(self._start_all())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._stop_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def add(self, host: str) -> str:
        """Starts one more and returns its address; also one that was stopped, by its address."""
        address = self._run(self._start(host))
        if address not in self.addresses:
            self.addresses.append(address)
        return address

    def stop(self, address: str) -> None:
        """Closes a backend's listening socket: new connections to it are refused. `add` starts it again."""
        self._run(self._sites.pop(address).stop())

    def behave(
        self, address: str, *, status: int = 200, delay: float = 0.0, headers: Mapping[str, str] | None = None
    ) -> None:
        """From now on the backend answers with this status and these headers, after `delay` seconds."""
        self._behaviour[address] = Behaviour(status, delay, headers or {})

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start_all(self) -> list[str]:
        self._runner = web.AppRunner(web.Application(), access_log=None, shutdown_timeout=0)
        self._runner.app.router.add_route("*", "/{path:.*}", self._answer)
        await self._runner.setup()
        return [await self._start(host) for host in self._hosts]

    async def _start(self, host: str) -> str:
        assert self._runner is not None
        site: web.BaseSite
        if host.startswith("unix:"):
            site = web.UnixSite(self._runner, host[len("unix:") :])
        else:
            ip, port = _split(host)
            site = web.TCPSite(self._runner, ip, port, backlog=1024)
        await site.start()
        address = _address_text(site._server.sockets[0].getsockname())  # type: ignore[union-attr]
        self._sites[address] = site
        return address

    async def _stop_all(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        address = _address_text(request.transport.get_extra_info("sockname"))
        behaviour = self._behaviour.get(address, Behaviour())
        self.hits[address] += 1
        self.asked[address] = request.headers.copy()
        await request.read()
        if request.path == "/held":
            return await _answer_without_end(request, address)
        if behaviour.delay:
            await asyncio.sleep(behaviour.delay)
        return web.Response(status=behaviour.status, text=address, headers={"x-backend": address, **behaviour.headers})


async def _answer_without_end(request: web.Request, address: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"x-backend": address})
    await response.prepare(request)
    await response.write(b"held")  # the headers leave with the first byte of the body
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - nothing signals it
        await asyncio.sleep(_HELD_POLL)
    return response


def _split(host: str) -> tuple[str, int]:
    """`IP`, `IP:PORT`, `IPv6` or `[IPv6]:PORT` as IP and port, 0 where there is none."""
    if host.startswith("["):
        ip, _, port = host[1:].partition("]:")
        return ip, int(port)
    if host.count(":") == 1:
        ip, _, port = host.partition(":")
        return ip, int(port)
    return host, 0


def _address_text(name: Any) -> str:
    """A socket's name as lbcore writes addresses."""
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
