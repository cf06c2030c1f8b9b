"""Real gRPC servers that answer who they are, for `xds:///` clients.

Method /lbcore.test.Backend/Address, any bytes in, the address out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent import futures
from types import TracebackType

import grpc

__all__ = ["ADDRESS_METHOD", "GrpcBackends"]

ADDRESS_METHOD = "/lbcore.test.Backend/Address"


class GrpcBackends:
    """gRPC backends on the given targets, `IP:PORT` or `[IPv6]:PORT`, port 0 for a free one. A context manager.

    `addresses` are theirs in the order given; `hits` counts the calls of each; those that are `failing` answer
    UNAVAILABLE and who they are.
    """

    def __init__(self, targets: Iterable[str] = ("127.0.0.1:0",)) -> None:
        self._targets = list(targets)
        self._servers: dict[str, grpc.Server] = {}
        self._threads = futures.ThreadPoolExecutor(max_workers=8, thread_name_prefix="grpc-backend")
        self.hits: Counter[str] = Counter()
        self.failing: set[str] = set()
        self.addresses: list[str] = []

    def __enter__(self) -> GrpcBackends:
        for target in self._targets:
            self.add(target)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for address in list(self._servers):
            self.stop(address)
        self._threads.shutdown()

    def add(self, target: str) -> str:
        """Starts one more and returns its address."""
        server = grpc.server(self._threads, options=[("grpc.so_reuseport", 0)])
        port = server.add_insecure_port(target)
        address = f"{target.rpartition(':')[0]}:{port}"

        def answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
            self.hits[address] += 1
            if address in self.failing:
                context.abort(grpc.StatusCode.UNAVAILABLE, address)
            return address.encode()

        service, method = ADDRESS_METHOD[1:].split("/")
        handlers = {method: grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.start()
        self._servers[address] = server
        if address not in self.addresses:
            self.addresses.append(address)
        return address

    def stop(self, address: str) -> None:
        """Ends a backend at once; calls to it fail."""
        self._servers.pop(address).stop(grace=0).wait()
