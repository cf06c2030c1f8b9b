"""Free ports, for the rare part that cannot be told to bind port 0 and say what it got."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator

__all__ = ["free_port"]

# Below the ports that Linux gives to connections and to port 0 (from 32768 on, net.ipv4.ip_local_port_range): nothing
# else of the machine takes one between the look and the use.
_FIRST, _LAST = 12_000, 32_000


def _never_twice() -> Iterator[int]:
    """Every port once, from a place of this process's own, so that two test runs rarely meet."""
    start = random.Random(os.getpid()).randrange(_FIRST, _LAST)
    yield from range(start, _LAST)
    yield from range(_FIRST, start)


_ports = _never_twice()


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago and is given out only once. Prefer port 0 where the part can report it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in _ports:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the servers that will bind it do, so that a port in TIME_WAIT counts as free for both or for neither.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"{host}: no port from {_FIRST} to {_LAST} is left")
