"""A Consul agent as far as `/v1/health/service` goes: the catalogue in memory, blocking queries, indices, headers.

Written after Consul's documentation (api-docs/features/blocking, api-docs/health): Consul itself is in no package that
the project installs.
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

    `requests` are the queries that have come; `headers` go into every answer; `failing` answers 500.
    """

    def __init__(self) -> None:
        self.index = 10
        self.instances: list[dict[str, Any]] = []
        self.requests: list[dict[str, str]] = []
        self.headers: dict[str, str] = {"X-Consul-KnownLeader": "true", "X-Consul-LastContact": "0"}
        self.failing = False
        self._changed = asyncio.Condition()

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/v1/health/service/{name}", self._show)
        return application

    async def put(self, *instances: dict[str, Any], index: int | None = None) -> None:
        """These are all instances now; the index goes up, or to where the test wants it (a restored snapshot)."""
        async with self._changed:
            self.instances = list(instances)
            self.index = self.index + 1 if index is None else index
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
        known = int(request.query.get("index", "0"))
        if known:
            await self._wait_past(known, request.query.get("wait", "300s"))
        shown = self.instances if request.match_info["name"] == "web" else []
        if tag := request.query.get("tag"):
            shown = [each for each in shown if tag in each["Service"]["Tags"]]
        return web.json_response(shown, headers={**self.headers, "X-Consul-Index": str(self.index)})

    async def _wait_past(self, known: int, wait: str) -> None:
        """Until the index is beyond the known one; one that is behind it answers at once."""
        seconds = float(re.fullmatch(r"([0-9.]+)s", wait)[1])  # type: ignore[index]
        try:
            async with self._changed:
                await asyncio.wait_for(self._changed.wait_for(lambda: self.index != known), seconds)
        except asyncio.TimeoutError:
            pass
