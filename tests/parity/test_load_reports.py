"""Load that comes back from the real Envoy and a real gRPC client, with the configuration of `examples/`."""

from __future__ import annotations

import time
from collections.abc import Callable

from lbcore.delivery import XdsDelivery
from lbcore.directory import ServiceSnapshot
from lbcore.model import Endpoint, Locality
from lbcore.routing import Listener, Route
from tests.harness.backends import HttpBackends
from tests.harness.control_plane import ControlPlane
from tests.harness.envoy import Envoy
from tests.harness.grpc_backends import GrpcBackends
from tests.harness.http_client import HttpClient
from tests.harness.ports import free_port
from tests.harness.process import wait_until
from tests.parity.example_client import Caller
from tests.parity.example_envoy import bootstrap, listening

EU = Locality("eu", "a")
EVERY_SECOND = XdsDelivery(load_reporting_interval=1.0)


def test_envoy_reports_requests_and_errors(
    control_plane: ControlPlane, start_envoy: Callable[..., Envoy], start_backends: Callable[..., HttpBackends]
) -> None:
    control_plane.deliver(EVERY_SECOND)
    backends = start_backends(["127.0.0.1"])
    (address,) = backends.addresses
    listener = Listener(name="in", address=f"127.0.0.1:{free_port()}", routes=(Route(prefix="/", service="web"),))
    web = ServiceSnapshot(name="web", endpoints=(Endpoint(address, locality=EU),))
    control_plane.publish(web, listeners=[listener])
    with HttpClient(listening(start_envoy(bootstrap(control_plane, "DELTA_GRPC")))) as client:
        sent = until_reports_come(control_plane, client) + 20
        for _ in range(20):
            client.get()
        backends.behave(address, status=503)
        for _ in range(5):
            client.get()
        wait_until(lambda: control_plane.reported("web", EU)[1] == 5, "5 errors")
        # Envoy counts from the moment that it has been asked to, some requests after the first.
        assert 21 <= control_plane.reported("web", EU)[0] <= sent


def until_reports_come(control_plane: ControlPlane, client: HttpClient) -> int:
    """Sends requests until Envoy reports them, as it does once it is asked to; returns how many were sent."""
    sent = 0

    def a_request_is_reported() -> bool:
        nonlocal sent
        client.get()
        sent += 1
        time.sleep(0.1)
        return control_plane.reported("web", EU)[0] > 0

    wait_until(a_request_is_reported, "a first report")
    return sent


def test_a_grpc_client_reports_requests(control_plane: ControlPlane, call_as: Callable[..., Caller]) -> None:
    control_plane.deliver(EVERY_SECOND)
    with GrpcBackends(["127.0.0.1:0"]) as backends:
        endpoints = tuple(Endpoint(address, locality=EU) for address in backends.addresses)
        control_plane.publish(ServiceSnapshot(name="web", endpoints=endpoints))
        caller = call_as("sync", "xds:///web")
        caller.wait_for_more(0, 100)
        wait_until(lambda: control_plane.reported("web", EU)[0] >= 100, "100 successes")
        assert control_plane.reported("web", EU)[1] == 0
    assert control_plane.nacks == []
