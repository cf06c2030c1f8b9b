"""HTTP sessions between a source and a server: a proxy that records them, a server that says them again, and a form in
which two of them can be compared.

A recording is a list of exchanges: path and query of the request, status, and the JSON of the answer, or the lines of a
watch as `events` and how it ended: `closed` in good order, or `cut`. What differs each time and tells nothing (uids,
times, who manages which field) is left out.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
from aiohttp import web

__all__ = ["Recorder", "Replay", "comparable"]

Exchange = dict[str, Any]

_LEFT_OUT = ("uid", "creationTimestamp", "managedFields")


class Recorder:
    """Passes requests on to `target` and writes down what is said. `down` refuses connections, and cuts those that are.

    `before` is called with the query of each request before it is passed on.
    """

    def __init__(self, target: str, session: aiohttp.ClientSession) -> None:
        self.exchanges: list[Exchange] = []
        self.before: Callable[[dict[str, str]], Awaitable[None]] | None = None
        self._target = target
        self._session = session
        self._down = False
        self._open: set[tuple[asyncio.Transport, aiohttp.ClientResponse]] = set()

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/{path:.*}", self._pass_on)
        return application

    @property
    def watching(self) -> bool:
        """Whether the last request is a watch that still goes on."""
        return bool(self.exchanges) and "events" in self.exchanges[-1] and "end" not in self.exchanges[-1]

    def go_down(self) -> None:
        self._down = True
        for transport, answer in self._open:
            answer.close()
            transport.abort()

    def go_up(self) -> None:
        self._down = False

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if self._down:
            _abort(request)
            return web.Response()
        query = dict(request.query)
        if self.before is not None:
            await self.before(query)
        headers = {name: value for name, value in request.headers.items() if name == "Authorization"}
        async with self._session.get(f"{self._target}{request.path}", params=query, headers=headers) as answer:
            exchange: Exchange = {"path": request.path, "query": query, "status": answer.status}
            self.exchanges.append(exchange)
            if "watch" in query and answer.status == 200:
                return await self._stream(request, answer, exchange)
            content = await answer.read()
            exchange["body"] = _trimmed(json.loads(content))
            return web.Response(status=answer.status, body=content, content_type="application/json")

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, exchange: Exchange
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        exchange["events"] = []
        assert request.transport is not None
        passing = request.transport, answer
        self._open.add(passing)
        try:
            async for line in answer.content:
                exchange["events"].append(event := _trimmed(json.loads(line)))
                if event["type"] == "ERROR":
                    exchange["end"] = "closed"  # after which either side may be the first to close
                await response.write(line)
            exchange["end"] = "closed"
        except (aiohttp.ClientError, OSError):
            _abort(request)
        finally:
            exchange.setdefault("end", "cut")
            self._open.discard(passing)
        return response


class Replay:
    """Answers as was recorded, to the same requests in the same order; anything else is a `surprise` and answered 500.

    The lines of a watch come one by one, each when `go_on` is called: its reader says that it is done with the last.
    """

    def __init__(self, exchanges: list[Exchange]) -> None:
        self._exchanges = exchanges
        self._begun = 0
        self._ended = 0
        self._go_on = asyncio.Event()
        self.surprise = ""

    @property
    def finished(self) -> bool:
        return bool(self.surprise) or self._ended == len(self._exchanges)

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/{path:.*}", self._answer)
        return application

    def go_on(self) -> None:
        self._go_on.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        expected = ({"path": None, "query": None}, *self._exchanges[self._begun :][:1])[-1]
        if (request.path, dict(request.query)) != (expected["path"], expected["query"]):
            self.surprise = f"{request.path} {dict(request.query)}: expected {expected['path']} {expected['query']}"
            return web.Response(status=500, text=self.surprise)
        self._begun += 1
        self._go_on.clear()
        if "events" not in expected:
            self._ended += 1
            return web.json_response(expected["body"], status=expected["status"])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for event in expected["events"]:
            await self._may_go_on()
            await response.write(json.dumps(event).encode() + b"\n")
        if expected["end"] == "cut":
            await self._may_go_on()
            _abort(request)
        self._ended += 1
        return response

    async def _may_go_on(self) -> None:
        await self._go_on.wait()
        self._go_on.clear()


def comparable(exchanges: list[Exchange]) -> list[Exchange]:
    """The same with versions by their order alone, and page tokens by name."""
    text = json.dumps(exchanges)
    numbers = sorted(set(map(int, _versions(exchanges))))
    order = {str(number): f"version {place}" for place, number in enumerate(numbers)}
    text = re.sub(r'"(resourceVersion)": "(\d+)"', lambda found: f'"{found[1]}": "{order[found[2]]}"', text)
    text = re.sub(r'"continue": "[^"]+"', '"continue": "more"', text)
    text = re.sub(r"too old resource version: (\d+) \((\d+)\)", lambda found: _told(found, order), text)
    compared: list[Exchange] = json.loads(text)
    return compared


def _told(found: re.Match[str], order: dict[str, str]) -> str:
    return f"too old resource version: {order[found[1]]} ({order[found[2]]})"


def _versions(shown: Any) -> Iterator[str]:
    """All versions that are said anywhere."""
    if isinstance(shown, list):
        for each in shown:
            yield from _versions(each)
    elif isinstance(shown, dict):
        for name, value in shown.items():
            if name == "resourceVersion":
                yield value
            elif name == "message":
                yield from re.findall(r"\d+", value if "too old resource version" in value else "")
            else:
                yield from _versions(value)


def _trimmed(shown: Any) -> Any:
    if isinstance(shown, list):
        return [_trimmed(each) for each in shown]
    if isinstance(shown, dict):
        return {name: _trimmed(value) for name, value in shown.items() if name not in _LEFT_OUT}
    return shown


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
