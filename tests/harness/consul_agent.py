"""A Consul agent as far as `/v1/health/service` goes: the catalogue in memory, blocking queries, indices, headers.

Written after Consul's documentation (api-docs/features/blocking, api-docs/health) and its sources (agent/http.go,
health_endpoint.go, blockingquery, submatview): Consul itself is in no package that the project installs.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from aiohttp import web

__all__ = ["ConsulAgent", "instance"]


def instance(name: str, address: str, port: int = 80, *statuses: str, **service: Any) -> dict[str, Any]:
    """An instance as the API shows it; `statuses` are those of its checks."""
    return {
        "Node": {
            "ID": f"{name}-node",
            "Node": f"{name}-node",
            "Address": "10.9.9.9",
            "Datacenter": "dc1",
            "Meta": None,
        },
        "Service": {
            "ID": name,
            "Service": "web",
            "Tags": [],
            "Address": address,
            "Meta": {},
            "Port": port,
            "Weights": {"Passing": 1, "Warning": 1},
            **service,
        },
        "Checks": [
            {"Node": f"{name}-node", "CheckID": f"check-{n}", "Status": each} for n, each in enumerate(statuses)
        ],
    }


class ConsulAgent:
    """Answers for the service `web`. `put` changes its instances; `application` is to be served.

    `requests` are the queries that have come; `headers` go into every answer; `failing` answers 500. As from Consul
    1.10 on, queries that wait are answered from a stream (`streaming`), which does not know of the leader; while it is
    not `loaded` it says nobody, at index 1 (agent/submatview: a deadline returns whatever the view holds). A token that
    may see nothing (`filtered`) is shown nothing, and only the servers themselves say that this is why. `token` is
    required once it is set.
    """

    def __init__(self) -> None:
        self.index = 10
        self.instances: list[dict[str, Any]] = []
        self.requests: list[dict[str, str]] = []
        self.headers: dict[str, str] = {}
        self.failing = False
        self.streaming = True
        self.loaded = True
        self.filtered = False
        self.token = ""
        self._restored = 0  # counts the times that a snapshot was restored, which ends all queries that wait
        self._changed = asyncio.Condition()

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/v1/health/service/{name}", self._show)
        return application

    async def put(self, *instances: dict[str, Any]) -> None:
        """These are all instances now, and the index goes up."""
        async with self._changed:
            self.instances = list(instances)
            self.index += 1
            self._changed.notify_all()

    async def restore(self, *instances: dict[str, Any], index: int) -> None:
        """A snapshot with these instances is restored, at an index that may be an older one."""
        async with self._changed:
            self.instances = list(instances)
            self.index = index
            self._restored += 1
            self._changed.notify_all()

    async def wake(self) -> None:
        """Ends blocking queries although nothing has changed, as any write to the catalogue may."""
        async with self._changed:
            self.index += 1
            self._changed.notify_all()

    async def _show(self, request: web.Request) -> web.Response:
        self.requests.append(dict(request.query))
        if self.failing:
            return web.Response(status=500, text="rpc error: No cluster leader")
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=403, text="ACL not found")
        known = int(request.query.get("index", "0"))
        streamed = bool(known) and self.streaming
        if known:
            await self._wait_past(known, request.query.get("wait", "300s"))
        headers = {
            "X-Consul-Index": str(self.index),
            "X-Consul-Knownleader": "false" if streamed else "true",
            "X-Consul-Lastcontact": "0",
            "X-Consul-Query-Backend": "streaming" if streamed else "blocking-query",
        }
        shown = self.instances if request.match_info["name"] == "web" else []
        if tag := request.query.get("tag"):
            shown = [each for each in shown if tag.lower() in map(str.lower, each["Service"]["Tags"])]
        if self.filtered:
            shown = []
            headers |= {} if streamed else {"X-Consul-Results-Filtered-By-ACLs": "true"}
        if streamed and not self.loaded:
            shown, headers["X-Consul-Index"] = [], "1"
        return web.json_response(shown, headers={**headers, **self.headers})

    async def _wait_past(self, known: int, wait: str) -> None:
        """Until the index is beyond the known one, which may take for ever, or a snapshot is restored."""
        seconds = float(re.fullmatch(r"([0-9.]+)s", wait)[1])  # type: ignore[index]
        restored = self._restored
        try:
            async with self._changed:
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: self.index > known or self._restored != restored), seconds
                )
        except asyncio.TimeoutError:
            pass
