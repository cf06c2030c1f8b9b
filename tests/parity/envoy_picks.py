"""Many picks of one Envoy, quickly: which host it chose for each of a run of requests, in their order.

The hosts are a second listener of the same Envoy, bound to many loopback addresses, that answers by itself. Requests go
one after the other on one connection, and Envoy has one worker thread, so the order of its picks is exact.
"""

from __future__ import annotations

import copy
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from tests.harness.bootstrap import StaticCluster, static_bootstrap
from tests.harness.envoy import Envoy
from tests.harness.ports import free_port

__all__ = ["EnvoyPicks", "host_address"]

Json = Any
_HOSTS = 64
_PORT = free_port()


def host_address(number: int) -> str:
    """Where the host of this number, below 64, answers."""
    assert 0 <= number < _HOSTS
    return f"127.0.1.{number + 1}:{_PORT}"


class EnvoyPicks:
    """An Envoy that balances over static clusters of the hosts above. A context manager.

    `more` is laid over the bootstrap's top level, for a node's locality or a cluster manager.
    """

    def __init__(self, clusters: Iterable[StaticCluster], more: Mapping[str, Json] | None = None) -> None:
        bootstrap = static_bootstrap(clusters)
        bootstrap["static_resources"]["listeners"].append(_answering_listener(bootstrap))
        self._envoy = Envoy({**bootstrap, **(more or {})})

    def __enter__(self) -> EnvoyPicks:
        self._envoy.__enter__()
        host, _, port = self._envoy.listeners()["ingress"].rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        self._stream = self._socket.makefile("rb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._socket.close()
        self._envoy.__exit__(kind, error, trace)

    def hosts(self, cluster: str, keys: Sequence[str]) -> list[str | None]:
        """The host of each key's request, by address; None where Envoy had none to give."""
        return [self._host(cluster, key) for key in keys]

    def _host(self, cluster: str, key: str) -> str | None:
        request = f"GET / HTTP/1.1\r\nhost: a.example\r\nx-cluster: {cluster}\r\nx-key: {key}\r\n\r\n"
        self._socket.sendall(request.encode())
        status = int(self._stream.readline().split()[1])
        headers = dict(self._headers())
        body = self._stream.read(int(headers.get("content-length", 0)))
        if status == 200:
            return headers["x-upstream"]
        assert (status, body) == (503, b"no healthy upstream"), f"{status} {body!r}"
        return None

    def _headers(self) -> Iterator[tuple[str, str]]:
        while line := self._stream.readline().strip():
            name, _, value = line.decode().partition(":")
            yield name.lower(), value.strip()


def _answering_listener(bootstrap: Mapping[str, Json]) -> dict[str, Json]:
    """The bootstrap's own listener turned into the hosts: 200 to everything."""
    listener: dict[str, Json] = copy.deepcopy(bootstrap["static_resources"]["listeners"][0])
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    virtual_host = {"name": "all", "domains": ["*"], "routes": [route]}
    listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"] = {"virtual_hosts": [virtual_host]}
    first, *others = [
        {"socket_address": {"address": f"127.0.1.{number + 1}", "port_value": _PORT}} for number in range(_HOSTS)
    ]
    listener |= {"name": "hosts", "address": first}
    listener["additional_addresses"] = [{"address": address} for address in others]
    return listener
