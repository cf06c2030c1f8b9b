"""A Kubernetes API server as far as EndpointSlices go: list with pages, watch with events, bookmarks, compaction, 410.

It says what an API server says, to the letter: tests/sources/test_kubernetes_recorded.py compares it with sessions that
were recorded with one.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

__all__ = ["KubernetesApi", "endpoint", "endpoint_slice"]

_PATH = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
_TYPE = {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1"}
_MORE = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."  # noqa: E501


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

    `requests` are the queries of all requests; `tokens` are the names of those who may read it, by their tokens, and
    those who may not (empty: anybody may); `page` bounds the items of a list; `refusing_watches` is the status that
    watches get. `cached` says in whose words a version is too old: the server's, that keeps what it watches since it
    started, or etcd's.
    """

    def __init__(self, *, cached: bool = True) -> None:
        self.version = 100
        self.slices: dict[str, dict[str, Any]] = {}
        self.requests: list[dict[str, str]] = []
        self.tokens: dict[str, str] = {}
        self.readers: frozenset[str] = frozenset()
        self.page = 500
        self.refusing_watches = 0
        self._cached = cached
        self._events: list[tuple[int, str, dict[str, Any], dict[str, Any] | None]] = []  # version, type, object, before
        self._compacted = 0  # versions before this one are gone
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
            before = self.slices.get(name)
            generation = before["metadata"]["generation"] + 1 if before else 1
            metadata = {"namespace": "prod", "resourceVersion": "", "generation": generation, **each["metadata"]}
            self.slices[name] = {**_TYPE, **each, "metadata": metadata}
            await self._happen("MODIFIED" if before else "ADDED", self.slices[name], before)

    async def delete(self, name: str) -> None:
        await self._happen("DELETED", self.slices.pop(name))

    def change_unseen(self, name: str, *endpoints: dict[str, Any]) -> None:
        """Changes a slice of which no watch is told: a list alone shows it."""
        self.version += 1
        self.slices[name]["endpoints"] = list(endpoints)
        self.slices[name]["metadata"]["resourceVersion"] = str(self.version)

    async def bookmark(self) -> None:
        """Tells watches the version, as the server does about once a minute."""
        shown = {**_TYPE, "metadata": {"resourceVersion": str(self.version)}}
        await self._tell("BOOKMARK", {**shown, "addressType": "", "endpoints": None, "ports": None})

    async def fail(self, code: int, message: str) -> None:
        """Tells watches of an error, which ends them."""
        await self._tell("ERROR", _status(code, message))

    async def cut(self) -> None:
        """Ends all watches, as a restart does."""
        async with self._changed:
            self._cut += 1
            self._changed.notify_all()

    def compact(self) -> None:
        """Forgets all that has happened so far."""
        self._compacted = self.version
        self._events.clear()

    async def _happen(self, kind: str, shown: dict[str, Any], before: dict[str, Any] | None = None) -> None:
        self.version += 1
        shown["metadata"]["resourceVersion"] = str(self.version)
        await self._tell(kind, shown, before)

    async def _tell(self, kind: str, shown: dict[str, Any], before: dict[str, Any] | None = None) -> None:
        async with self._changed:
            self._events.append((self.version, kind, json.loads(json.dumps(shown)), before))
            self._changed.notify_all()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(dict(request.query))
        user = self.tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if self.tokens and user is None:
            return _refused(401, "Unauthorized", "Unauthorized")
        namespace = request.match_info["namespace"]
        if namespace != "prod" or (user is not None and user not in self.readers):
            what = 'cannot list resource "endpointslices" in API group "discovery.k8s.io" in the namespace'
            message = f'endpointslices.discovery.k8s.io is forbidden: User "{user}" {what} "{namespace}"'
            return _refused(403, message, "Forbidden", {"group": "discovery.k8s.io", "kind": "endpointslices"})
        return await self._watch(request) if "watch" in request.query else self._list(request)

    def _list(self, request: web.Request) -> web.Response:
        version, _, start = request.query.get("continue", f"{self.version},").partition(",")
        if int(version) < self._compacted:
            metadata = {"continue": f"-1,{start}"}
            return web.json_response(_status(410, _MORE, "Expired", metadata=metadata), status=410)
        names = [name for name in sorted(self.slices) if name > start and self._selected(self.slices[name], request)]
        shown = names[: min(self.page, int(request.query["limit"]))] if "limit" in request.query else names
        more = {"continue": f"{version},{shown[-1]}"} if len(shown) < len(names) else {}
        items = [{key: value for key, value in self.slices[name].items() if key not in _TYPE} for name in shown]
        metadata = {"resourceVersion": version, **more}
        answer = {"kind": "EndpointSliceList", "apiVersion": _TYPE["apiVersion"], "metadata": metadata, "items": items}
        return web.json_response(answer)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if self.refusing_watches:
            return _refused(self.refusing_watches, "the watch is refused", "")
        cut = self._cut
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if since < self._compacted:
            gone = f"too old resource version: {since} ({self._compacted})"
            gone = gone if self._cached else "The resourceVersion for the provided watch is too old."
            await _write(response, "ERROR", _status(410, gone, "Expired"))
            return response
        sent = sum(version <= since for version, _, _, _ in self._events)
        while True:
            async with self._changed:
                while len(self._events) == sent and self._cut == cut:
                    await self._changed.wait()
            if self._cut != cut:
                return response
            for version, kind, shown, before in self._events[sent:]:
                if kind in ("BOOKMARK", "ERROR") or self._selected(shown, request):
                    await _write(response, kind, shown)
                elif before is not None and self._selected(before, request):
                    # What is no longer selected is deleted for this watch: as it was, at the version of the change.
                    metadata = {**before["metadata"], "resourceVersion": str(version)}
                    await _write(response, "DELETED", {**before, "metadata": metadata})
                if kind == "ERROR":
                    return response
            sent = len(self._events)

    def _selected(self, shown: dict[str, Any], request: web.Request) -> bool:
        name, _, value = request.query.get("labelSelector", "").partition("=")
        return not name or shown["metadata"]["labels"].get(name) == value


async def _write(response: web.StreamResponse, kind: str, shown: dict[str, Any]) -> None:
    line = json.dumps({"type": kind, "object": shown}).encode() + b"\n"
    # In two parts, because nothing says that a line comes whole.
    await response.write(line[:20])
    await response.write(line[20:])


def _refused(code: int, message: str, reason: str, details: dict[str, str] | None = None) -> web.Response:
    return web.json_response(_status(code, message, reason, details), status=code)


def _status(
    code: int,
    message: str,
    reason: str = "",
    details: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
) -> dict[str, Any]:
    optional = {"reason": reason, "details": details}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": metadata or {},
        "status": "Failure",
        "message": message,
        **{name: value for name, value in optional.items() if value},
        "code": code,
    }
