"""`lbcore serve` with services whose endpoints sources find: first answers, outages, reloads, and how it shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.http_client import HttpClient
from tests.harness.name_server import NameServer
from tests.harness.process import Process, wait_until
from tests.harness.service import LBCORE, ROOT, LbcoreService


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NameServer]:
    with NameServer(tmp_path, "host-record=web.internal,10.0.0.1,1", "host-record=api.internal,10.0.0.8,1") as server:
        yield server


def sourced(server: NameServer, **names: str) -> str:
    """A configuration with services that DNS names are the sources of."""
    return json.dumps({"services": {service: {"source": dns(server, name)} for service, name in names.items()}})


def dns(server: NameServer, name: str) -> dict[str, Any]:
    fields = {"resolvers": [server.address], "dns_lookup_family": "v4_only", "min_ttl": "100ms", "timeout": "1s"}
    return {"dns": {"name": name, "port": 80, **fields}}


def endpoints(service: LbcoreService) -> dict[str, list[str]]:
    groups = json.loads(service.get("/sd").body)
    found: dict[str, list[str]] = {}
    for group in groups:
        found.setdefault(group["labels"]["__meta_lbcore_service"], []).extend(group["targets"])
    return found


def text(service: LbcoreService, path: str) -> str:
    return service.get(path).body.decode()


def metric(service: LbcoreService, name: str) -> float:
    lines = text(service, "/metrics").splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_endpoints_are_there_from_the_first_answer_on(server: NameServer, tmp_path: Path) -> None:
    with LbcoreService(tmp_path, sourced(server, web="web.internal", api="api.internal")) as service:
        assert endpoints(service) == {"web": ["10.0.0.1:80"], "api": ["10.0.0.8:80"]}


def test_an_outage_takes_nothing_away_and_shows(server: NameServer, tmp_path: Path) -> None:
    with LbcoreService(tmp_path, sourced(server, web="web.internal")) as service:
        assert "web::source::dns:web\n" in text(service, "/clusters")
        assert metric(service, 'lbcore_source_up{source="dns:web"}') == 1
        server.stop()
        wait_until(lambda: metric(service, 'lbcore_source_up{source="dns:web"}') == 0, "the source to be down")
        assert endpoints(service) == {"web": ["10.0.0.1:80"]}
        assert "web::stale::A web.internal: no answer within 1 s\n" in text(service, "/clusters")
        assert json.loads(service.get("/ready").body)["stale"] == {"dns:web": "A web.internal: no answer within 1 s"}
        assert metric(service, 'lbcore_source_stale{source="dns:web"}') == 1
        assert metric(service, 'lbcore_source_errors_total{source="dns:web"}') >= 1
        assert metric(service, 'lbcore_source_age_seconds{source="dns:web"}') > 0.1
        server.change("host-record=web.internal,10.0.0.2,1")
        wait_until(lambda: endpoints(service) == {"web": ["10.0.0.2:80"]}, "the new address")
        assert metric(service, 'lbcore_source_updates_total{source="dns:web"}') == 2
        assert "web::stale" not in text(service, "/clusters")


def test_a_reload_changes_sources_and_keeps_endpoints_until_the_new_one_answers(
    server: NameServer, tmp_path: Path
) -> None:
    with LbcoreService(tmp_path, sourced(server, web="web.internal")) as service:
        service.replace(sourced(server, web="api.internal", more="web.internal"))
        wait_until(lambda: endpoints(service) == {"more": ["10.0.0.1:80"], "web": ["10.0.0.8:80"]}, "both sources")
        service.replace('{"services": {"web": {"endpoints": ["10.0.0.7:80"]}}}')
        wait_until(lambda: endpoints(service) == {"web": ["10.0.0.7:80"]}, "the listed endpoint")
        assert "lbcore_source_up{" not in text(service, "/metrics")
        assert service.end() == 0


def test_nothing_is_answered_before_the_first_sync(tmp_path: Path) -> None:
    server = NameServer(tmp_path, "host-record=web.internal,10.0.0.1,1")  # not started yet
    config = tmp_path / "lbcore.yaml"
    config.write_text(sourced(server, web="web.internal"))
    argv = [*LBCORE, "serve", config, "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with Process(argv, cwd=ROOT, grace=15) as process:
        process.wait_for_output("source dns:web: A web.internal: no answer", stream="stderr")
        assert process.stdout == ""
        with server:
            process.wait_for_output("^ready ")


def test_a_silent_source_holds_the_others_back_for_so_long_only(tmp_path: Path) -> None:
    server = NameServer(tmp_path)  # never started
    source = dns(server, "web.internal")
    source["dns"]["initial_fetch_timeout"] = "500ms"
    services = {"web": {"source": source}, "api": {"endpoints": ["10.0.0.8:80"]}}
    with LbcoreService(tmp_path, json.dumps({"services": services})) as service:
        assert endpoints(service) == {"api": ["10.0.0.8:80"]}
        assert "not heard from within 0.5 s" in service.process.stderr


def test_a_restart_while_the_source_is_away_serves_what_it_said_before(server: NameServer, tmp_path: Path) -> None:
    source = dns(server, "web.internal")
    source["dns"]["initial_fetch_timeout"] = "500ms"
    with LbcoreService(tmp_path, json.dumps({"services": {"web": {"source": source}}})) as service:
        server.stop()
        service.end()
        service.restart()
        assert endpoints(service) == {"web": ["10.0.0.1:80"]}
        assert "web::stale::" in text(service, "/clusters")
        server.change("host-record=web.internal,10.0.0.2,1")
        wait_until(lambda: endpoints(service) == {"web": ["10.0.0.2:80"]}, "the new address")


def test_one_lbcore_is_the_source_of_another(server: NameServer, tmp_path: Path) -> None:
    with LbcoreService(tmp_path, sourced(server, web="web.internal", api="api.internal")) as first:
        source = {"http_sd": {"url": f"http://{first.admin}/sd?service=web", "refresh_interval": "100ms"}}
        (tmp_path / "second").mkdir()
        with LbcoreService(tmp_path / "second", json.dumps({"services": {"shop": {"source": source}}})) as second:
            assert endpoints(second) == {"shop": ["10.0.0.1:80"]}
            server.change("host-record=web.internal,10.0.0.2,1")
            wait_until(lambda: endpoints(second) == {"shop": ["10.0.0.2:80"]}, "the change to arrive")


def test_an_unchanged_list_of_targets_is_not_sent_twice(server: NameServer, tmp_path: Path) -> None:
    with LbcoreService(tmp_path, sourced(server, web="web.internal")) as service:
        etag = service.get("/sd").headers["etag"]
        assert service.get("/sd?service=nobody").body == b"[]"
        with HttpClient(service.admin) as client:
            assert client.get("/sd", {"If-None-Match": etag}).status == 304
