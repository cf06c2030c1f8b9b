"""A real Envoy, fed with what DNS says: no request fails while DNS is away and lbcore restarts without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness.backends import HttpBackends
from tests.harness.envoy import Envoy
from tests.harness.name_server import NameServer
from tests.harness.ports import free_port
from tests.harness.process import wait_until
from tests.harness.service import LbcoreService
from tests.harness.traffic import HttpTraffic
from tests.parity.example_envoy import bootstrap, listening


def records(addresses: list[str]) -> list[str]:
    """One SRV record for each address, all at 127.0.0.1."""
    ports = [address.rpartition(":")[2] for address in addresses]
    return ["host-record=here.internal,127.0.0.1,1", *(f"srv-host=_web._tcp.internal,here.internal,{p}" for p in ports)]


def configuration(server: NameServer) -> str:
    settings: dict[str, Any] = {"resolvers": [server.address], "dns_lookup_family": "v4_only", "timeout": "300ms"}
    source = {"dns": {"name": "_web._tcp.internal", "min_ttl": "200ms", "initial_fetch_timeout": "1s", **settings}}
    ingress = {"name": "in", "address": f"127.0.0.1:{free_port()}", "routes": [{"prefix": "/", "service": "web"}]}
    return json.dumps({"services": {"web": {"source": source}}, "listeners": [ingress]})


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
def test_envoy_loses_nothing_while_the_source_is_away_and_lbcore_restarts(tmp_path: Path, api_type: str) -> None:
    with HttpBackends(["127.0.0.1"] * 3) as backends, NameServer(tmp_path, *records(backends.addresses[:2])) as server:
        one, two, three = backends.addresses
        with (
            LbcoreService(tmp_path, configuration(server)) as service,
            Envoy(bootstrap(service, api_type)) as envoy,
            HttpTraffic(listening(envoy)) as traffic,
        ):
            wait_until(lambda: traffic.since(0).keys() == {one, two}, "requests to both")
            start = len(traffic.failures)  # Envoy may not have had its endpoints when the first one came
            server.stop()
            service.end()
            service.restart()
            wait_until(lambda: "web::stale::" in service.get("/clusters").body.decode(), "the source to be stale")
            mark = traffic.mark()
            wait_until(lambda: sum(traffic.since(mark).values()) > 200, "more requests")
            assert traffic.since(mark).keys() == {one, two}
            server.change(*records([three]))
            wait_until(lambda: three in traffic.since(mark), "the new endpoint", 40)
            assert traffic.failures[start:] == []
