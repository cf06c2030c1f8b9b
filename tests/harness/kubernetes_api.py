"""A Kubernetes API server as far as EndpointSlices go: list with pages, watch with events, bookmarks, compaction, 410.

Written after the documentation ("Kubernetes API Concepts", discovery.k8s.io/v1): Kubernetes itself is in no package
that the project installs.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

__all__ = ["KubernetesApi", "endpoint", "endpoint_slice"]

_PATH = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"


def endpoint(address: str, **fields: Any) -> dict[str, Any]:
    """An endpoint that is ready, unless `conditions` say something else."""
    conditions = {"ready": True, "serving": True, "terminating": False}
    return {"addresses": [address], "conditions": conditions, **fields}


def endpoint_slice(name: str, *endpoints: dict[str, Any], service: str = "web", **fields: Any) -> dict[str, Any]:
    """A slice of IPv4 addresses with the port `http`, 8080, unless fields say something else."""
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        **fields,
    }


class KubernetesApi:
    """One namespace, `prod`. `put` and `delete` change slices; `application` is to be served.

    `requests` are the queries of all requests; `token` is required once it is set; `page` bounds the items of a list,
    of which `continues` more can be had before their version is gone; `refusing_watches` is the status that they get.
    """

    def __init__(self) -> None:
        self.version = 100
        self.slices: dict[str, dict[str, Any]] = {}
        self.requests: list[dict[str, str]] = []
        self.token = ""
        self.page = 500
        self.continues = 1_000_000
        self.refusing_watches = 0
        self._events: list[tuple[int, str, dict[str, Any]]] = []  # version, type, object
        self._compacted = 0  # versions up to here are gone
        self._changed = asyncio.Condition()
        self._cut = 0  # counts the times that all watches were cut off

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get(_PATH, self._answer)
        return application

    @property
    def watches(self) -> list[dict[str, str]]:
        return [query for query in self.requests if "watch" in query]

    async def put(self, *slices: dict[str, Any]) -> None:
        for each in slices:
            name = each["metadata"]["name"]
            await self._happen("MODIFIED" if name in self.slices else "ADDED", each)
            self.slices[name] = each

    async def delete(self, name: str) -> None:
        await self._happen("DELETED", self.slices.pop(name))

    def change_unseen(self, name: str, *endpoints: dict[str, Any]) -> None:
        """Changes a slice of which no watch is told: a list alone shows it."""
        self.version += 1
        self.slices[name]["endpoints"] = list(endpoints)
        self.slices[name]["metadata"]["resourceVersion"] = str(self.version)

    async def bookmark(self) -> None:
        """Tells watches the version, as the server does about once a minute."""
        self.version += 10
        await self._happen("BOOKMARK", {"kind": "EndpointSlice", "metadata": {}})

    async def fail(self, code: int, message: str) -> None:
        """Tells watches of an error, which ends them."""
        async with self._changed:
            self._events.append((self.version, "ERROR", {"kind": "Status", "code": code, "message": message}))
            self._changed.notify_all()

    async def cut(self) -> None:
        """Ends all watches, as a restart does."""
        async with self._changed:
            self._cut += 1
            self._changed.notify_all()

    def compact(self) -> None:
        """Forgets all that has happened so far."""
        self._compacted = self.version
        self._events.clear()

    async def _happen(self, kind: str, shown: dict[str, Any]) -> None:
        async with self._changed:
            self.version += 1
            shown["metadata"]["resourceVersion"] = str(self.version)
            self._events.append((self.version, kind, json.loads(json.dumps(shown))))
            self._changed.notify_all()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(dict(request.query))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        if request.match_info["namespace"] != "prod":
            return _status(403, "endpointslices is forbidden")
        return await self._watch(request) if "watch" in request.query else self._list(request)

    def _list(self, request: web.Request) -> web.Response:
        start = int(request.query.get("continue", "0"))
        if start:
            self.continues -= 1
            if self.continues < 0:
                return _status(410, "The provided continue parameter is too old")
        size = min(self.page, int(request.query["limit"])) if "limit" in request.query else len(self.slices)
        named = [each for _, each in sorted(self.slices.items()) if self._selected(each, request)]
        more = {"continue": str(start + size)} if start + size < len(named) else {}
        metadata = {"resourceVersion": str(self.version), **more}
        return web.json_response({"kind": "List", "metadata": metadata, "items": named[start : start + size]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if self.refusing_watches:
            return _status(self.refusing_watches, "the watch is refused")
        since = int(request.query["resourceVersion"])
        if since < self._compacted:
            return _status(410, f"too old resource version: {since} ({self._compacted})")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        sent = sum(version <= since for version, _, _ in self._events)
        cut = self._cut
        while True:
            async with self._changed:
                while len(self._events) == sent and self._cut == cut:
                    await self._changed.wait()
            if self._cut != cut:
                return response
            for _, kind, shown in self._events[sent:]:
                if kind in ("BOOKMARK", "ERROR") or self._selected(shown, request):
                    line = json.dumps({"type": kind, "object": shown}).encode() + b"\n"
                    # In two parts, because nothing says that a line comes whole.
                    await response.write(line[:20])
                    await response.write(line[20:])
                if kind == "ERROR":
                    return response
            sent = len(self._events)

    def _selected(self, shown: dict[str, Any], request: web.Request) -> bool:
        name, _, value = request.query.get("labelSelector", "").partition("=")
        return not name or shown["metadata"]["labels"].get(name) == value


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)
