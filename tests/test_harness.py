"""The harness itself: what the other tests rest on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from lbcore.model import Endpoint
from tests.harness.backends import HttpBackends
from tests.harness.bootstrap import StaticCluster, static_bootstrap
from tests.harness.envoy import Envoy
from tests.harness.grpc_backends import ADDRESS_METHOD, GrpcBackends
from tests.harness.http_client import HttpClient
from tests.harness.ports import free_port
from tests.harness.process import Process, wait_until


def test_envoy_proxies_to_a_backend_and_names_its_host(
    start_envoy: Callable[..., Envoy], start_backends: Callable[..., HttpBackends]
) -> None:
    (address,) = start_backends(["127.0.0.1"]).addresses
    envoy = start_envoy(static_bootstrap([StaticCluster(name="web", endpoints=(Endpoint(address),))]))
    with HttpClient(envoy.listeners()["ingress"]) as client:
        answer = client.get("/", {"x-cluster": "web"})
    assert (answer.headers["x-backend"], answer.headers["x-upstream"]) == (address, address)
    assert list(envoy.hosts("web")) == [address]
    assert envoy.stats("cluster.web.upstream_rq_total") == {"cluster.web.upstream_rq_total": 1}


def test_a_bootstrap_that_envoy_refuses_raises_with_its_complaint() -> None:
    with pytest.raises(RuntimeError, match="no_such_field"), Envoy({"no_such_field": 1}):
        pass


def test_backends_answer_their_own_address_over_ipv4_ipv6_and_unix_sockets(tmp_path: Path) -> None:
    with HttpBackends(["127.0.0.1", "127.0.0.2", "::1", f"unix:{tmp_path}/web.sock"]) as backends:
        for address in backends.addresses[:3]:
            with HttpClient(address) as client:
                assert client.get().body.decode() == address
        assert backends.addresses[3] == f"unix:{tmp_path}/web.sock"
        assert backends.hits == dict.fromkeys(backends.addresses[:3], 1)


def test_a_hundred_backends_run_at_once() -> None:
    with HttpBackends([f"127.0.0.{number}" for number in range(1, 101)]) as backends:
        assert len(set(backends.addresses)) == 100


def test_a_stopped_backend_refuses_and_serves_again_once_added() -> None:
    with HttpBackends() as backends:
        (address,) = backends.addresses
        backends.stop(address)
        with HttpClient(address) as client, pytest.raises(ConnectionRefusedError):
            client.get()
        backends.add(address)
        with HttpClient(address) as client:
            assert client.get().body.decode() == address


def test_a_backend_answers_with_the_status_it_is_told() -> None:
    with HttpBackends() as backends:
        backends.behave(backends.addresses[0], status=503)
        with HttpClient(backends.addresses[0]) as client:
            assert client.get().status == 503


def test_grpc_backends_answer_their_own_address() -> None:
    with GrpcBackends(["127.0.0.1:0", "[::1]:0"]) as backends:
        for address in backends.addresses:
            with grpc.insecure_channel(address) as channel:
                assert channel.unary_unary(ADDRESS_METHOD, None, None)(b"", timeout=30).decode() == address


def test_a_free_port_can_be_bound() -> None:
    with HttpBackends([f"127.0.0.1:{free_port()}"]) as backends:
        assert len(backends.addresses) == 1


def test_leaving_a_process_ends_it() -> None:
    with Process([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]) as process:
        process.wait_for_output("up")
        assert process.alive
    assert not process.alive


def test_a_process_that_ends_early_is_reported_with_its_output() -> None:
    script = "import sys; sys.exit('no such setting')"
    with Process([sys.executable, "-c", script]) as process, pytest.raises(RuntimeError, match="no such setting"):
        process.wait_for_output("never")


def test_waiting_ends_at_the_time_limit() -> None:
    with pytest.raises(TimeoutError, match=r"the impossible: not within 0\.05 s"):
        wait_until(lambda: False, "the impossible", 0.05)
