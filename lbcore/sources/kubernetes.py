"""The endpoints of a Kubernetes Service: its EndpointSlices listed, then watched.

The list says everything at one resource version; the watch goes on from there, and after a break from where it was.
A version that the API server no longer has (410 Gone) means a new list, whose difference to the old one is the change:
nothing is dropped in between. Bookmarks keep the version young while nothing happens.
Source: Kubernetes docs, "Kubernetes API Concepts" (efficient detection of changes), discovery.k8s.io/v1.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from lbcore.membership import Membership
from lbcore.source import Kubernetes
from lbcore.sources.endpoint_slices import EndpointSlice, SliceTable
from lbcore.sources.feed import Feed, FeedBroken, Timing
from lbcore.sources.http import MAX_BODY, HttpClient, body, decoded

__all__ = ["KubernetesFeed"]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_PAGE = 500  # slices in one answer, as client-go asks for
_SHORTEST_WATCH = 300.0  # seconds, up to twice as much at random, as client-go's reflector
_TOO_SHORT = 1.0  # seconds of a watch that says nothing: then something is wrong (client-go's VeryShortWatchError)
_PACE = 0.2  # seconds from one watch to the next at least, however soon it ends (client-go: rest.DefaultQPS)
_GONE, _BUSY = 410, 429


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str
    next_page: str = msgspec.field(name="continue", default="")


class _SliceList(msgspec.Struct):
    metadata: _ListMetadata
    items: list[EndpointSlice] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct):
    metadata: _ListMetadata


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


class KubernetesFeed(Feed):
    """The slices of one Service by name, and the version that they are of."""

    def __init__(self, source: Kubernetes, timing: Timing, environment: Mapping[str, str] | None = None) -> None:
        self._source = source
        self._timing = timing
        self._environment = os.environ if environment is None else environment
        self._slices = SliceTable(source.port)
        self._version = ""  # empty: to be listed

    async def follow(self) -> AsyncGenerator[Membership | FeedBroken, None]:
        client, url = self._client()
        async with client.session() as session:
            while True:
                if fresh := not self._version:
                    await self._list(client, session, url)
                    yield self._members()
                began = self._timing.clock()
                async with aclosing(self._watch(client, session, url, fresh)) as changes:
                    async for _ in changes:
                        yield self._members()
                if (early := began + _PACE - self._timing.clock()) > 0:
                    await self._timing.sleep(early)

    def _members(self) -> Membership | FeedBroken:
        """Slices that are of no use are told of, but not raised: the watch is what tells when they are mended."""
        try:
            return self._slices.membership()
        except FeedBroken as unusable:
            return unusable

    def _client(self) -> tuple[HttpClient, str]:
        """Raises `FeedBroken` where nothing says which API server it is."""
        source = self._source
        namespace = source.namespace
        if source.url is not None:
            client, server = HttpClient(source), source.url
        else:
            host, port = (self._environment.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
            if not host or not port:
                raise FeedBroken("no url given, and this process does not run in a cluster")
            client = HttpClient(source, str(SERVICE_ACCOUNT / "token"), str(SERVICE_ACCOUNT / "ca.crt"))
            server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
            namespace = namespace or _own_namespace()
        path = f"/apis/discovery.k8s.io/v1/namespaces/{quote(namespace or 'default', safe='')}/endpointslices"
        return client, f"{server.rstrip('/')}{path}"

    async def _list(self, client: HttpClient, session: aiohttp.ClientSession, url: str) -> None:
        """Everything there is, page by page at one version; should that be gone meanwhile, all at once (client-go)."""
        slices: list[EndpointSlice] = []
        query = {**self._selector(), "limit": str(_PAGE)}
        while True:
            async with client.get(session, url, query=query) as response:
                if response.status == _GONE and "limit" in query:
                    slices, query = [], self._selector()
                    continue
                page = decoded(await body(response), _SliceList)
            slices += page.items or ()
            if not page.metadata.next_page:
                break
            if page.metadata.next_page == query.get("continue"):
                raise FeedBroken("list: a page that continues with itself")  # a cache that does not heed the query
            query["continue"] = page.metadata.next_page
        self._slices.replace(slices)
        self._version = page.metadata.resource_version

    async def _watch(
        self, client: HttpClient, session: aiohttp.ClientSession, url: str, fresh: bool
    ) -> AsyncGenerator[None, None]:
        """Applies events; yields when the watch begins, and after each event or as many as came at once.

        Ends when the server ends the watch in good order, or no longer has the version: that is then to be listed. So
        is what it refuses for another reason, as in client-go, lest a version that it never accepts is kept for ever;
        and what says nothing for its whole time: a server that was restored from a backup accepts versions that it has
        yet to reach, and keeps silent until it does.
        """
        seconds = _SHORTEST_WATCH * (1.0 + self._timing.random())
        query = {
            **self._selector(),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(seconds)),
        }
        started, spoken = self._timing.clock(), False
        async with client.get(session, url, query=query, held=seconds, endless=True) as response:
            if response.status != 200:
                if response.status != _BUSY:
                    self._version = ""
                if response.status != _GONE:
                    await body(response)
            else:
                yield
                async for lines in _lines(response):
                    if not self._apply_all(lines):
                        break
                    spoken = True
                    yield
        lasted = self._timing.clock() - started
        if not spoken and lasted < _TOO_SHORT and (self._version or fresh):  # not at a version that was just found gone
            raise FeedBroken("the watch ended at once")
        if not spoken and lasted >= int(seconds):
            self._version = ""

    def _apply_all(self, lines: Iterable[bytes]) -> bool:
        """Returns whether the watch goes on. Raises `FeedBroken` at what goes wrong, which a new list is to mend."""
        try:
            return all(self._apply(decoded(line, _Event)) for line in lines)
        except FeedBroken:
            self._version = ""
            raise

    def _apply(self, event: _Event) -> bool:
        if event.type == "ERROR":
            status = decoded(bytes(event.object), _Status)
            if status.code != _GONE:
                raise FeedBroken(f"watch: {status.code} {status.message}")
            self._version = ""
            return False
        if event.type == "BOOKMARK":
            self._version = decoded(bytes(event.object), _Bookmark).metadata.resource_version
            return True
        changed: EndpointSlice = decoded(bytes(event.object), EndpointSlice)
        if event.type == "DELETED":
            self._slices.remove(changed.metadata.name)
        elif event.type in ("ADDED", "MODIFIED"):
            self._slices.put(changed)
        else:
            raise FeedBroken(f"watch: event {event.type!r:.60}: expected ADDED, MODIFIED, DELETED, BOOKMARK or ERROR")
        self._version = changed.metadata.resource_version
        return True

    def _selector(self) -> dict[str, Any]:
        return {"labelSelector": f"kubernetes.io/service-name={self._source.service}"}


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    """The lines of an answer without an end, as many as come at once; aiohttp refuses those as long as a slice is."""
    rest = b""
    async for part in response.content.iter_any():
        *lines, last = part.split(b"\n")
        if lines:
            yield [line for line in (rest + lines[0], *lines[1:]) if line.strip()]
            rest = last
        else:
            rest += last
        if len(rest) > MAX_BODY:
            raise FeedBroken(f"watch: an event of more than {MAX_BODY} bytes")


def _own_namespace() -> str:
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
