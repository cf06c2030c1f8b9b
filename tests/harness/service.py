"""`lbcore serve` as a child process, on ports that the kernel chose, with a configuration file that tests replace."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests.harness.http_client import Answer, HttpClient
from tests.harness.process import Process

__all__ = ["LBCORE", "ROOT", "Ended", "LbcoreService", "lbcore", "web_with"]

ROOT = Path(__file__).parents[2]
LBCORE = (sys.executable, "-m", "lbcore")


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


def lbcore(*arguments: str | Path) -> Ended:
    """Runs a command of the command line to its end."""
    with Process([*LBCORE, *arguments], cwd=ROOT) as process:
        code = process.wait(60)
        return Ended(code, process.stdout, process.stderr)


def web_with(*endpoints: str | Mapping[str, Any], **settings: Any) -> str:
    """A configuration (JSON is YAML) with the service `web` alone."""
    return json.dumps({"services": {"web": {"endpoints": list(endpoints), **settings}}})


class LbcoreService:
    """A service that serves `folder`/lbcore.yaml, with more options of `lbcore serve`. A context manager; ready when
    entered.

    `grpc` and `admin` are its addresses; `restart` keeps them.
    """

    def __init__(self, folder: Path, configuration: str, *options: str) -> None:
        self._options = options
        self.config = folder / "lbcore.yaml"
        self.config.write_text(configuration)
        self.grpc = self.admin = "127.0.0.1:0"
        self._start()

    def __enter__(self) -> LbcoreService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.__exit__(kind, error, trace)

    def replace(self, configuration: str) -> None:
        """Replaces the file atomically, as an editor or a deployment does."""
        new = self.config.with_suffix(".new")
        new.write_text(configuration)
        os.replace(new, self.config)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit code that it ends with by itself."""
        self.process.signal(number)
        return self.process.wait()

    def restart(self) -> None:
        """Starts it again, on the addresses that it had. After `end`."""
        self.process.__exit__(None, None, None)
        self._start()

    def get(self, path: str) -> Answer:
        """What the admin port answers."""
        with HttpClient(self.admin) as client:
            return client.get(path)

    def _start(self) -> None:
        # Longer than the service's own drain: a forced end would hide that it does not end by itself.
        argv = [*LBCORE, "serve", self.config, "--grpc", self.grpc, "--admin", self.admin, *self._options]
        self.process = Process(argv, cwd=ROOT, grace=30)
        self.process.start()
        try:
            ready = self.process.wait_for_output(r"^ready grpc=(\S+) admin=(\S+)$")
        except BaseException:
            self.process.__exit__(None, None, None)
            raise
        self.grpc, self.admin = ready.groups()
