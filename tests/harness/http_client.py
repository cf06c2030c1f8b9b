"""A keep-alive HTTP/1.1 client for keyed requests through a proxy."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

__all__ = ["Answer", "HttpClient"]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class HttpClient:
    """One connection to `HOST:PORT`, kept open and opened again where the server closed it. A context manager."""

    def __init__(self, address: str, time_limit: float = 5.0) -> None:
        host, _, port = address.rpartition(":")
        self._connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=time_limit)

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, path: str = "/", headers: Mapping[str, str] | None = None) -> Answer:
        """Any status is an answer; a connection that fails raises `OSError` or `http.client.HTTPException`."""
        try:
            self._connection.request("GET", path, headers=dict(headers or {}))
            response = self._connection.getresponse()
            lowered = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, lowered, response.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
