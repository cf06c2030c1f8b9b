"""Backends for a benchmark, in a process of their own: HTTP or gRPC servers that answer who they are.

    python -m bench.backends http|grpc COUNT

Prints their addresses as a line of JSON, and ends with its standard input.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness.backends import HttpBackends
from tests.harness.grpc_backends import GrpcBackends


@contextmanager
def backends(kind: str, count: int) -> Iterator[list[str]]:
    """The addresses of so many."""
    command = [sys.executable, "-m", "bench.backends", kind, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.communicate(timeout=30)


if __name__ == "__main__":
    kind, count = sys.argv[1], int(sys.argv[2])
    made = HttpBackends(["127.0.0.1"] * count) if kind == "http" else GrpcBackends(["127.0.0.1:0"] * count)
    with made as running:
        print(json.dumps(running.addresses), flush=True)
        sys.stdin.read()
