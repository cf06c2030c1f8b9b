"""The admin port: `/ready`, `/metrics`, `/clusters`, `/sd` and an index, over HTTP. Read-only."""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import ETag, web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from lbcore.directory import DirectorySnapshot
from lbcore.service.clusters import Clusters
from lbcore.service.envoy_clusters import clusters_json, clusters_text
from lbcore.service.service_discovery import targets_json

__all__ = ["Admin"]


class Admin:
    """The pages of the admin port. `draining` is set when the service is about to stop."""

    def __init__(self, clusters: Clusters, registry: CollectorRegistry) -> None:
        self.draining = False
        self._clusters = clusters
        self._registry = registry

    def application(self) -> web.Application:
        """The pages as an aiohttp application."""
        pages: dict[str, tuple[Callable[[web.Request], Awaitable[web.Response]], str]] = {
            "/clusters": (self._show_clusters, "every endpoint as Envoy's admin shows it; ?format=json"),
            "/metrics": (self._show_metrics, "for Prometheus"),
            "/sd": (self._show_targets, "endpoints for Prometheus's http_sd_configs; ?service=NAME for one service"),
            "/ready": (self._show_ready, "200 when the service answers, else 503; says which sources are stale"),
        }
        rows = "".join(f'<li><a href="{path}">{path}</a> {html.escape(what)}\n' for path, (_, what) in pages.items())
        index = (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>lbcore</title><h1>lbcore</h1><ul>\n{rows}</ul>"
        )

        async def show_index(_: web.Request) -> web.Response:
            return web.Response(text=index, content_type="text/html")

        application = web.Application()
        application.router.add_get("/", show_index)
        for path, (show, _) in pages.items():
            application.router.add_get(path, show)
        return application

    async def _show_ready(self, _: web.Request) -> web.Response:
        directory = self._clusters.directory
        snapshot = directory.current
        ready = directory.synced and not self.draining
        detail = {
            "ready": ready,
            "synced": directory.synced,
            "draining": self.draining,
            "stale": dict(snapshot.stale),
            "services": len(snapshot.services),
            "revision": snapshot.revision,
            "version": _version(snapshot),
        }
        return web.json_response(detail, status=200 if ready else 503, dumps=_dumps)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _show_clusters(self, request: web.Request) -> web.Response:
        """Written in a thread: of a hundred thousand endpoints it takes seconds, in which all else has to go on."""
        form = request.query.get("format", "text")
        clusters = list(self._clusters)
        if form == "text":
            directory = self._clusters.directory
            loads = {service: directory.loads.of(service) for service in directory.loads.services}
            return web.Response(text=await asyncio.to_thread(clusters_text, clusters, directory.current, loads))
        if form == "json":
            return web.Response(text=await asyncio.to_thread(clusters_json, clusters), content_type="application/json")
        return web.Response(status=400, text=f"format {form!r}: expected text or json\n")

    async def _show_targets(self, request: web.Request) -> web.Response:
        """503 until the directory is synced: a client then keeps what it has, where an empty list would remove all."""
        directory = self._clusters.directory
        if not directory.synced:
            return web.Response(status=503, text="not every source has been heard from yet\n")
        services = directory.current.services
        wanted = request.query.getall("service", [*services])
        known = [services[name] for name in sorted(set(wanted)) if name in services]
        etag = ETag(_digest(f"{service.name}\0{service.version}\0" for service in known))
        if request.if_none_match and etag in request.if_none_match:
            response = web.Response(status=304)
        else:
            response = web.Response(body=targets_json(known), content_type="application/json")
        response.etag = etag
        return response


def _version(snapshot: DirectorySnapshot) -> str:
    """A hash of every service's version: replicas with the same content agree on it."""
    return _digest(f"{name}\0{service.version}\0" for name, service in sorted(snapshot.services.items()))


def _digest(parts: Iterable[str]) -> str:
    return hashlib.blake2b("".join(parts).encode(), digest_size=8).hexdigest()


def _dumps(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"
