"""dnsmasq as a DNS server on loopback, with the records that a test says and may change while it runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pytest

from tests.harness.ports import free_port
from tests.harness.process import Process

__all__ = ["NameServer"]

_PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


class NameServer:
    """A DNS server for the domain `internal` at `address`. A context manager.

    Options are dnsmasq's, less the dashes: `host-record=web.internal,10.0.0.1,30`, `srv-host=...`. Every other name in
    the domain does not exist; outside of it the server refuses to answer.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        program = shutil.which("dnsmasq", path=_PLACES)
        if program is None:
            pytest.skip("no dnsmasq here: make programs installs it as root")
        self._program = program
        self._folder = folder
        self._options: Sequence[str] = options
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"

    def __enter__(self) -> NameServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        configuration = self._folder / "dnsmasq.conf"
        configuration.write_text("".join(f"{option}\n" for option in (*_always(self._port), *self._options)))
        self._process = Process([self._program, "--keep-in-foreground", f"--conf-file={configuration}"])
        self._process.start()
        try:
            self._process.wait_for_output("started, version", stream="stderr")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._process.__exit__(None, None, None)

    def change(self, *options: str) -> None:
        """Serves these records from now on; for a moment nobody answers."""
        self.stop()
        self._options = options
        self.start()


def _always(port: int) -> tuple[str, ...]:
    return (
        f"port={port}",
        "listen-address=127.0.0.1",
        "bind-interfaces",
        "no-resolv",
        "no-hosts",
        "pid-file=",
        "user=",
        "log-facility=-",
        "local=/internal/",
    )
