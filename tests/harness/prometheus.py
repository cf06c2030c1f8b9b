"""The real Prometheus as a child process, with jobs that HTTP service discovery fills. From Debian's package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import pytest

from tests.harness.http_client import HttpClient
from tests.harness.ports import free_port
from tests.harness.process import Process, wait_until

__all__ = ["Prometheus", "needs_prometheus"]

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus here: make programs installs it as root"
)


class Prometheus:
    """Scrapes every second what the URLs list, by job. A context manager; it answers when entered.

    It takes changes of a list over every five seconds (discovery.Manager, updatert).
    """

    def __init__(self, folder: Path, jobs: Mapping[str, str], *relabel: Mapping[str, Any]) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        configuration = folder / "prometheus.json"  # JSON is YAML
        scrapes = [
            {
                "job_name": job,
                "http_sd_configs": [{"url": url, "refresh_interval": "1s"}],
                "relabel_configs": list(relabel),
            }
            for job, url in jobs.items()
        ]
        settings = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        configuration.write_text(json.dumps({"global": settings, "scrape_configs": scrapes}))
        argv = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        self.process = Process([*argv, f"--web.listen-address={self.address}", "--log.level=warn"])

    def __enter__(self) -> Prometheus:
        self.process.start()
        try:
            wait_until(self._is_ready, "Prometheus", 60)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.__exit__(None, None, None)

    def targets(self, job: str) -> dict[str, dict[str, Any]]:
        """What it scrapes for a job, by the address that was discovered."""
        found = self._ask("/api/v1/targets?state=active")["activeTargets"]
        return {each["discoveredLabels"]["__address__"]: each for each in found if each["scrapePool"] == job}

    def value(self, query: str) -> float:
        """The value of the one series that a query gives; 0 where there is none."""
        found = self._ask(f"/api/v1/query?query={quote(query)}")["result"]
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else 0.0

    def own_metric(self, name: str) -> float:
        """One of its own metrics."""
        with HttpClient(self.address) as client:
            lines = client.get("/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def _ask(self, path: str) -> Any:
        with HttpClient(self.address) as client:
            answer = json.loads(client.get(path).body)
        assert answer["status"] == "success", answer
        return answer["data"]

    def _is_ready(self) -> bool:
        if not self.process.alive:
            raise RuntimeError(f"Prometheus ended while starting\n{self.process.report()}")
        try:
            with HttpClient(self.address) as client:
                return client.get("/-/ready").status == 200
        except OSError:
            return False
