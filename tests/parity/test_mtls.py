"""End to end over mutual TLS: `lbcore serve` with certificates and grants, the real Envoy and gRPC clients that have
certificates of their own, while the server's certificate is replaced and a client's is revoked."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.harness.backends import HttpBackends
from tests.harness.certificates import Authority, Issued, IssuedFiles
from tests.harness.envoy import Envoy
from tests.harness.grpc_backends import GrpcBackends
from tests.harness.ports import free_port
from tests.harness.process import Process, wait_until
from tests.harness.service import ROOT, LbcoreService, lbcore
from tests.harness.traffic import HttpTraffic
from tests.parity.example_client import Caller

ENVOY, CALLER = "spiffe://example.org/envoy", "spiffe://example.org/caller"


class World(NamedTuple):
    """A service behind mutual TLS, and who has which certificate."""

    folder: Path
    authority: Authority
    service: LbcoreService
    tls: dict[str, str]
    certificates: dict[str, IssuedFiles]

    def serve(self, grants: list[dict[str, Any]], **services: list[str]) -> None:
        """These services, with these grants."""
        self.service.replace(configuration(self.tls, grants, **services))

    def wait_for(self, endpoint: str) -> None:
        """Waits until the service has it."""
        wait_until(lambda: endpoint.encode() in self.service.get("/clusters").body, endpoint)

    def options_of(self, identity: str) -> list[str | Path]:
        """For the command line, as this identity."""
        files = self.certificates[identity]
        options: list[str | Path] = ["--server", self.service.grpc, "--ca-file", self.tls["client_ca_file"]]
        return [*options, "--certificate-file", files.certificate, "--private-key-file", files.key]


GRANTS: list[dict[str, Any]] = [
    {"identity": ENVOY, "services": ["web"], "nodes": ["envoy-1"]},
    {"identity": CALLER, "services": ["api"], "allow": ["xds", "pick"]},
]
INGRESS = f"127.0.0.1:{free_port()}"


def configuration(tls: dict[str, str], grants: list[dict[str, Any]], **services: list[str]) -> str:
    listeners = [{"name": "in", "address": INGRESS, "routes": [{"prefix": "/", "service": "web"}]}]
    return json.dumps(
        {
            "services": {name: {"endpoints": endpoints} for name, endpoints in services.items()},
            "listeners": listeners,
            "tls": {**tls, "check_interval": "250ms"},
            "access": grants,
        }
    )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.root)
    authority.issue_server().write(tmp_path, "server")
    (tmp_path / "crl.pem").write_bytes(authority.revocation_list())
    tls = {
        "certificate_file": str(tmp_path / "server.pem"),
        "private_key_file": str(tmp_path / "server.key"),
        "client_ca_file": str(tmp_path / "ca.pem"),
        "client_crl_file": str(tmp_path / "crl.pem"),
    }
    certificates = {
        identity: authority.issue(uris=[identity]).write(tmp_path, identity.rpartition("/")[2])
        for identity in (ENVOY, CALLER)
    }
    with LbcoreService(tmp_path, configuration(tls, GRANTS, web=[])) as service:
        yield World(tmp_path, authority, service, tls, certificates)


def start_envoy(world: World, api_type: str) -> Envoy:
    bootstrap: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "envoy-mtls.yaml").read_text())
    bootstrap["dynamic_resources"]["ads_config"]["api_type"] = api_type
    (cluster,) = bootstrap["static_resources"]["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    port = int(world.service.grpc.rpartition(":")[2])
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
    files = world.certificates[ENVOY]
    of_tls = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    (pair,) = of_tls["tls_certificates"]
    pair["certificate_chain"]["filename"], pair["private_key"]["filename"] = map(str, files)
    of_tls["validation_context"]["trusted_ca"]["filename"] = world.tls["client_ca_file"]
    return Envoy(bootstrap)


def caller(world: World) -> Process:
    bootstrap: dict[str, Any] = json.loads((ROOT / "examples" / "grpc-bootstrap-mtls.json").read_text())
    (server,) = bootstrap["xds_servers"]
    server["server_uri"] = world.service.grpc
    files = world.certificates[CALLER]
    server["channel_creds"][0]["config"] = {
        "ca_certificate_file": world.tls["client_ca_file"],
        "certificate_file": str(files.certificate),
        "private_key_file": str(files.key),
    }
    argv = [sys.executable, "-m", "tests.parity.grpc_caller", "sync", "xds:///api"]
    environment = {"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap), "PYTHONPATH": str(ROOT)}
    return Process(argv, env=environment, cwd=ROOT)


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
def test_r8_r9_envoy_is_served_what_is_granted_through_rotation_until_it_is_revoked(
    world: World, api_type: str
) -> None:
    with ExitStack() as running:
        one, two, three = running.enter_context(HttpBackends(["127.0.0.1"] * 3)).addresses
        world.serve(GRANTS, web=[one], api=[three])
        world.wait_for(one)
        envoy = running.enter_context(start_envoy(world, api_type))
        wait_until(lambda: "in" in envoy.listeners(), "the listener")
        load = running.enter_context(HttpTraffic(INGRESS))
        wait_until(lambda: load.since(0)[one] > 20, "requests")
        assert "api" not in envoy.clusters(), "it may see one service only"

        before = shown_certificate(world)
        world.authority.issue_server().write(world.folder, "server")
        wait_until(lambda: shown_certificate(world) != before, "the new certificate")
        world.serve(GRANTS, web=[two], api=[three])
        wait_until(lambda: load.since(0)[two] > 20, "requests to the new endpoint")

        number = Issued(world.certificates[ENVOY].certificate.read_bytes(), b"").serial_number
        (world.folder / "crl.new").write_bytes(world.authority.revocation_list(number))
        (world.folder / "crl.new").rename(world.folder / "crl.pem")
        wait_until(lambda: "is revoked" in world.service.process.stderr, "the refusal")
        mark = load.mark()
        world.serve(GRANTS, web=[one], api=[three])
        world.wait_for(one)
        wait_until(lambda: load.since(mark)[two] > 200, "more requests")
        assert load.since(mark).keys() == {two}, "what comes after its revocation does not reach it, and nothing goes"
        assert load.failures == []


def test_r8_r9_a_grpc_client_is_served_what_is_granted_through_rotation(world: World) -> None:
    with ExitStack() as running:
        one, two = running.enter_context(GrpcBackends(["127.0.0.1:0"] * 2)).addresses
        world.serve(GRANTS, web=[], api=[one])
        world.wait_for(one)
        client = Caller(running.enter_context(caller(world)))
        wait_until(lambda: client.since(0)[one] > 20, "calls")
        world.authority.issue_server().write(world.folder, "server")
        world.serve(GRANTS, web=[], api=[two])
        wait_until(lambda: client.since(0)[two] > 20, "calls to the new endpoint")
        assert client.failures == []

        picked = lbcore("pick", "api", *world.options_of(CALLER))
        assert (picked.code, picked.stdout.strip()) == (0, two)
        hidden, unknown = (lbcore("pick", name, *world.options_of(CALLER)) for name in ("web", "wab"))
        assert hidden.code == unknown.code == 2
        assert hidden.stderr == unknown.stderr.replace("wab", "web"), "it does not show that web exists"
        nodes = lbcore("nodes", *world.options_of(CALLER))
        assert nodes.code == 1
        assert "status is not granted" in nodes.stderr
        allowed = [*GRANTS, {"identity": CALLER, "allow": ["status"]}]
        world.serve(allowed, web=[], api=[two])
        wait_until(lambda: "grpc-client-1" in lbcore("nodes", *world.options_of(CALLER)).stdout, "the client")
        registered = lbcore("deregister", "api", one, *world.options_of(CALLER))
        assert "register is not granted" in registered.stderr


def shown_certificate(world: World) -> str:
    host, _, port = world.service.grpc.rpartition(":")
    context = ssl.create_default_context(cafile=world.tls["client_ca_file"])
    context.load_cert_chain(*world.certificates[CALLER])
    return ssl.get_server_certificate((host, int(port)), ca_certs=world.tls["client_ca_file"])


def test_r8_bad_certificates_at_the_start_are_told_by_field(world: World, tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    world.authority.issue_server().write(tmp_path, "other")
    for change, what in (
        ({"certificate_file": "/nowhere.pem"}, "tls.certificate_file '/nowhere.pem': No such file or directory"),
        ({"private_key_file": str(tmp_path / "other.key")}, "expected the key of the certificate in"),
        ({"private_key_file": str(tmp_path / "ca.pem")}, "expected an unencrypted private key in PEM"),
        ({"client_ca_file": str(tmp_path / "server.key")}, "tls.client_ca_file"),
        ({"client_crl_file": str(tmp_path / "server.key")}, "tls.client_crl_file"),
    ):
        config.write_text(configuration({**world.tls, **change}, GRANTS, web=[]))
        ended = lbcore("serve", config, "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0")
        assert ended.code == 2
        assert what in ended.stderr
    text = json.dumps({"services": {}, "access": GRANTS})
    config.write_text(text)
    ended = lbcore("check", config)
    assert ended.code == 2
    assert "access: expected with tls.client_ca_file only" in ended.stderr


def test_a_bad_pair_leaves_the_last_good_one_in_use(world: World) -> None:
    before = shown_certificate(world)
    (world.folder / "server.pem").write_bytes(world.authority.issue_server().certificate)
    world.service.process.wait_for_output("last good certificates stay in use", stream="stderr")
    assert shown_certificate(world) == before
    assert b"lbcore_tls_failures_total 1.0" in world.service.get("/metrics").body
