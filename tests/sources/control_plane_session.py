"""A session of the xDS source with a control plane, step by step: what there is, and what the source tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from google.protobuf.json_format import MessageToDict

from lbcore.source import Xds
from lbcore.sources.feed import FeedBroken, Timing
from lbcore.sources.xds import XdsFeed

__all__ = ["STEPS", "VARIANTS", "Told", "Variant", "as_json", "follow"]

Variant = Literal["grpc", "delta_grpc"]
VARIANTS: tuple[Variant, ...] = ("grpc", "delta_grpc")

_OTHER = {"other": "other-eds"}
_BOTH = {**_OTHER, "web": "web-eds"}


def _state(version: str, *hosts: str, clusters: dict[str, str] = _BOTH, other: str = "10.9.9.9") -> dict[str, Any]:
    listed = {"other-eds": [other], **({"web-eds": list(hosts)} if "web" in clusters else {})}
    return {"Version": version, "Clusters": clusters, "Hosts": listed}


# What there is, or that the connection breaks; and what the source tells last of it.
STEPS: tuple[tuple[dict[str, Any] | None, list[str] | str], ...] = (
    (_state("1", "10.0.0.1"), ["10.0.0.1:80"]),
    (_state("2", "10.0.0.1", "10.0.0.2"), ["10.0.0.1:80", "10.0.0.2:80"]),
    (_state("3", "10.0.0.1", "10.0.0.2", other="10.9.9.8"), ["10.0.0.1:80", "10.0.0.2:80"]),
    (_state("4"), []),
    (_state("5", "10.0.0.3"), ["10.0.0.3:80"]),
    (_state("6", "no address"), "refused: endpoints[0].lb_endpoints[0]: address 'no address:80': "),
    (_state("7", "10.0.0.4"), ["10.0.0.4:80"]),
    (None, ["10.0.0.4:80"]),
    (_state("8", "10.0.0.5"), ["10.0.0.5:80"]),
    (_state("9", clusters=_OTHER), []),
    (_state("10", "10.0.0.6"), ["10.0.0.6:80"]),
)

Told = list[list[str] | str]


async def follow(address: str, variant: Variant, told: Told, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Follows the cluster `web` for ever, and lists what the source tells; failures by their reason."""
    feed = XdsFeed(Xds(address, api_type=variant), "web", Timing(sleep=sleep))
    while True:
        try:
            async for heard in feed.follow():
                broken = isinstance(heard, FeedBroken)
                told.append(str(heard) if broken else [each.address for each in heard.endpoints])
        except FeedBroken as broke:
            told.append(str(broke))
        await asyncio.sleep(0.01)


def as_json(message: Any) -> Any:
    """A message as it is recorded and compared, less what differs with each version of lbcore."""
    shown = MessageToDict(message, preserving_proto_field_name=True)
    shown.get("node", {}).pop("user_agent_version", None)
    return shown
