"""A real Prometheus: it finds through `/sd` what is served, and reads lists of targets as the `http_sd` source does."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from lbcore.source import HttpSd
from lbcore.sources.feed import Timing
from lbcore.sources.http_sd import HttpSdFeed
from tests.harness.process import wait_until
from tests.harness.prometheus import Prometheus, needs_prometheus
from tests.harness.service import LbcoreService
from tests.sources.following import Following

pytestmark = needs_prometheus

SERVICE = {"source_labels": ["__meta_lbcore_service"], "target_label": "service"}


def configuration(*endpoints: dict[str, Any]) -> str:
    return json.dumps({"services": {"web": {"endpoints": list(endpoints)}, "api": {"endpoints": ["127.0.0.2:9"]}}})


def test_it_scrapes_what_is_served_follows_changes_and_keeps_its_targets_through_an_outage(tmp_path: Path) -> None:
    (tmp_path / "scraped").mkdir()
    # A second service, whose admin port is what the first one lists: something that can be scraped.
    with (
        LbcoreService(tmp_path / "scraped", "services: {}") as scraped,
        LbcoreService(tmp_path, "services: {}") as service,
    ):
        listed = {"address": scraped.admin, "locality": "eu/a", "weight": 3, "metadata": {"rack": "7"}}
        service.replace(configuration(listed))
        with Prometheus(tmp_path, {"fleet": f"http://{service.admin}/sd"}, SERVICE) as prometheus:
            wait_until(lambda: prometheus.value(f'up{{service="web",instance="{scraped.admin}"}}') == 1, "a scrape", 90)
            found = prometheus.targets("fleet")
            assert found.keys() == {scraped.admin, "127.0.0.2:9"}
            labels = {
                name: value for name, value in found[scraped.admin]["discoveredLabels"].items() if "lbcore" in name
            }
            assert labels == {
                "__meta_lbcore_service": "web",
                "__meta_lbcore_health": "unknown",
                "__meta_lbcore_locality": "eu/a",
                "__meta_lbcore_priority": "0",
                "__meta_lbcore_weight": "3",
                "__meta_lbcore_metadata": '{"rack":"7"}',
                "__meta_lbcore_metadata_rack": "7",
            }
            assert found[scraped.admin]["labels"] == {"instance": scraped.admin, "job": "fleet", "service": "web"}
            service.replace(configuration(listed, {"address": "[::1]:9"}))
            wait_until(lambda: "[::1]:9" in prometheus.targets("fleet"), "the change", 90)
            service.end()
            failures = "prometheus_sd_http_failures_total"
            wait_until(lambda: prometheus.own_metric(failures) > 2, "failures of discovery", 90)
            assert prometheus.targets("fleet").keys() == {scraped.admin, "127.0.0.2:9", "[::1]:9"}


def test_what_the_admin_port_measures_is_as_its_linter_wants_it(tmp_path: Path) -> None:
    with LbcoreService(tmp_path, configuration({"address": "127.0.0.1:9"})) as service:
        metrics = service.get("/metrics").body
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics, capture_output=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stderr.decode()) == (0, "")


LISTS: dict[str, object] = {
    "plain": [{"targets": ["10.0.0.1:80", "10.0.0.2:80"], "labels": {"env": "prod"}}],
    "several": [{"targets": ["10.0.0.1:80"], "labels": {"a": "1"}}, {"targets": ["10.0.0.2:80"], "labels": {"a": "2"}}],
    "bare": [{"targets": ["10.0.0.1:80"]}],
    "null": [{"targets": ["10.0.0.1:80"], "labels": None}],
    "six": [{"targets": ["[fd00::1]:80"]}],
    "twice": [{"targets": ["10.0.0.1:80", "10.0.0.1:80"]}],
    "hollow": [{"targets": []}, {"targets": ["10.0.0.1:80"]}],
    "empty": [],
    "meta": [{"targets": ["10.0.0.1:80"], "labels": {"__meta_datacenter": "eu", "__metrics_path__": "/m"}}],
}
BAD: list[tuple[int, str]] = [
    (500, "[]"),
    (404, "[]"),
    (204, ""),
    (200, ""),
    (200, "["),
    (200, "{}"),
    (200, "[null]"),
    (200, '[{"targets": [1]}]'),
    (200, '[{"targets": ["10.0.0.1:80"], "labels": {"a": 1}}]'),
]


class Lists:
    """Serves `answers` by path, as JSON."""

    def __init__(self) -> None:
        self.answers = {name: (200, json.dumps(each)) for name, each in LISTS.items()}
        self.url = ""


@contextmanager
def served(lists: Lists) -> Iterator[Lists]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = lists.answers[self.path.removeprefix("/")]
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    lists.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield lists
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_lists_are_read_and_kept_as_it_does_itself(tmp_path: Path) -> None:
    async def no_sleep(_: float) -> None: ...

    lists = Lists()
    with served(lists):
        urls = {name: f"{lists.url}/{name}" for name in LISTS}
        with Prometheus(tmp_path, urls) as prometheus:
            feeds = {name: Following(HttpSdFeed(HttpSd(url), Timing(sleep=no_sleep))) for name, url in urls.items()}
            read = {name: set(await feed.addresses()) for name, feed in feeds.items()}

            def seen() -> dict[str, set[str]]:
                return {name: {*prometheus.targets(name)} for name in urls}

            await asyncio.to_thread(wait_until, lambda: seen() == read, "the same targets", 90)
            lists.answers = dict(zip(LISTS, BAD, strict=True))
            assert all([await feed.broken() for feed in feeds.values()])
            # For longer than it takes to take changes over.
            failures = "prometheus_sd_http_failures_total"
            await asyncio.to_thread(wait_until, lambda: prometheus.own_metric(failures) > 8 * len(BAD), "failures", 60)
            assert seen() == read
