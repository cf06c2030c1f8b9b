"""A keep-alive HTTP/1.1 client for keyed requests through a proxy."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType

__all__ = ["Answer", "HttpClient"]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    set_cookies: tuple[str, ...] = ()


class HttpClient:
    """One connection to `HOST:PORT`, kept open and opened again where the server closed it. A context manager.

    `source_ip` is the address that it comes from.
    """

    def __init__(self, address: str, time_limit: float = 30.0, source_ip: str = "") -> None:
        host, _, port = address.rpartition(":")
        source = (source_ip, 0) if source_ip else None
        self._connection = http.client.HTTPConnection(
            host.strip("[]"), int(port), timeout=time_limit, source_address=source
        )

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    @property
    def own_address(self) -> str:
        """The client's side of the connection, which is opened if need be."""
        if self._connection.sock is None:
            self._connection.connect()
        host, port = self._connection.sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def get(
        self, path: str = "/", headers: Mapping[str, str] | Iterable[tuple[str, str | bytes]] | None = None
    ) -> Answer:
        """Any status is an answer; a connection that fails raises `OSError` or `http.client.HTTPException`.

        Headers as pairs are sent as they stand, in order, repeated ones as well.
        """
        lines = list(headers.items() if isinstance(headers, Mapping) else headers or ())
        names_host = any(name.lower() == "host" for name, _ in lines)
        try:
            self._connection.putrequest("GET", path, skip_host=names_host, skip_accept_encoding=True)
            for name, value in lines:
                self._connection.putheader(name, value)
            self._connection.endheaders()
            response = self._connection.getresponse()
            received = [(name.lower(), value) for name, value in response.getheaders()]
            set_cookies = tuple(value for name, value in received if name == "set-cookie")
            return Answer(response.status, dict(received), response.read(), set_cookies)
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
