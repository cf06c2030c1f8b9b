"""A gRPC client in a process of its own: `examples/grpc-bootstrap.json` with the address of the server under test."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.harness.process import Process, wait_until

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "grpc-bootstrap.json"


class Caller:
    """A client that calls without a pause."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def lines(self) -> list[str]:
        """The answers so far."""
        assert self._process.alive, self._process.report()
        return self._process.stdout.splitlines()

    @property
    def failures(self) -> list[str]:
        return [line for line in self.lines if line.startswith("FAIL")]

    def mark(self) -> int:
        """Now, for `since`."""
        return len(self.lines)

    def since(self, mark: int) -> Counter[str]:
        """How many answers each backend has given since then."""
        return Counter(self.lines[mark:])

    def wait_for_more(self, mark: int, count: int) -> None:
        wait_until(lambda: len(self.lines) >= mark + count, f"{count} more answers")


def caller_process(server: str, kind: str, target: str, *headers: str, node: Any = None, **env: str) -> Process:
    """The process behind a `Caller`; kind is `sync` or `aio`, `node` adds to the bootstrap's."""
    bootstrap: dict[str, Any] = json.loads(EXAMPLE.read_text())
    bootstrap["xds_servers"][0]["server_uri"] = server
    bootstrap["node"] |= node or {}
    argv = [sys.executable, "-m", "tests.parity.grpc_caller", kind, target, *headers]
    environment = {"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap), "PYTHONPATH": str(ROOT), **env}
    return Process(argv, env=environment, cwd=ROOT)
