"""What sources that speak HTTP share: a session with their token and CA, and failures in words."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from lbcore.source import HttpSettings
from lbcore.sources.feed import FeedBroken

__all__ = ["MAX_BODY", "HttpClient", "body", "decoded"]

MAX_BODY = 64 * 2**20  # bytes; a list of 100,000 endpoints takes a third of that
_SHOWN = 300  # characters of an answer that is refused
_READ = 10_000  # bytes of it
# A peer that vanishes without a word is noticed within a minute, though a request is held for many: seconds of silence,
# seconds between probes, probes. Go's HTTP/2 client, which client-go watches with, takes 45 s (ReadIdleTimeout).
_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 3))


class _Status(msgspec.Struct):
    message: str


class HttpClient:
    """Requests with the settings of a source. One connection pool for each `session`."""

    def __init__(self, settings: HttpSettings, token_file: str = "", ca_file: str = "") -> None:
        self._timeout = settings.timeout
        self._token_file = settings.token_file or token_file
        self._ca_file = settings.ca_file or ca_file

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """A session in which every failure is a `FeedBroken`."""
        try:
            connector = aiohttp.TCPConnector(ssl=self._tls(), limit=2, socket_factory=_socket)
            async with aiohttp.ClientSession(connector=connector, auto_decompress=True) as session:
                yield session
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as failed:
            raise FeedBroken(_in_words(failed)) from None

    @asynccontextmanager
    async def get(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        held: float = 0.0,
        endless: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET. `held` is how many seconds the server may take on top of the timeout.

        That is for the whole answer, since a server that trickles is one that does not answer; of an `endless` one, for
        each read.
        """
        limit = self._timeout + held
        timeout = aiohttp.ClientTimeout(None if endless else limit, sock_connect=self._timeout, sock_read=limit)
        authorization = {"Authorization": f"Bearer {self._token()}"} if self._token_file else {}
        async with session.get(
            url, params=query, headers={**(headers or {}), **authorization}, timeout=timeout
        ) as response:
            yield response

    def _tls(self) -> ssl.SSLContext | bool:
        if not self._ca_file:
            return True
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except (OSError, ssl.SSLError) as wrong:
            raise FeedBroken(f"ca_file {self._ca_file}: {wrong}") from None
        # Set by Python 3.13: it refuses the CAs of many clusters (EKS, microk8s) for extensions that they lack, which
        # Go's clients, and so kubectl and consul, do not ask for (kubernetes-client/python issue 2394).
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def _token(self) -> str:
        """Read for each request: tokens are replaced while they are in use."""
        try:
            token = Path(self._token_file).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as wrong:
            raise FeedBroken(f"token_file {self._token_file}: {wrong}") from None
        if not token.isprintable():
            raise FeedBroken(f"token_file {self._token_file}: expected one line")
        return token


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """One that probes its peer while it waits."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        if number := getattr(socket, option, None):  # macOS knows not all of them
            made.setsockopt(socket.IPPROTO_TCP, number, value)
    return made


async def body(response: aiohttp.ClientResponse) -> bytes:
    """The whole body of an answer 200. Raises `FeedBroken`."""
    if response.status != 200:
        shown = _reason(await response.content.read(_READ))
        raise FeedBroken(f"{response.status} {response.reason}{f': {shown!r}' if shown else ''}")
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(2**16):
        size += len(part)
        if size > MAX_BODY:
            raise FeedBroken(f"an answer of more than {MAX_BODY} bytes")
        parts.append(part)
    return b"".join(parts)


def _reason(content: bytes) -> str:
    """Why a server refuses: the message of a Kubernetes Status, else the text itself."""
    try:
        return msgspec.json.decode(content, type=_Status).message[:_SHOWN]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return content.decode(errors="replace").strip()[:_SHOWN]


def decoded(content: bytes, kind: Any) -> Any:
    """JSON to a declared type. Raises `FeedBroken` that names the field."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise FeedBroken(f"not as expected: {wrong}") from None


def _in_words(failed: Exception) -> str:
    """A failure for a message; some of aiohttp's and asyncio's have no text."""
    if isinstance(failed, asyncio.TimeoutError):
        return "no answer in time"
    if isinstance(failed, aiohttp.TooManyRedirects):
        return f"more than {len(failed.history)} redirections, the last from {failed.history[-1].url}"
    return str(failed) or type(failed).__name__
