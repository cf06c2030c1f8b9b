"""A service with a TTL in the real Envoy: heartbeats keep it, and without them it is forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from lbcore.directory import ServiceSnapshot
from lbcore.model import Endpoint
from tests.harness.control_plane import ControlPlane
from tests.harness.envoy import Envoy
from tests.harness.process import wait_until
from tests.parity.example_envoy import bootstrap

TTL = 2.0  # seconds; heartbeats may be late by most of it
FEATURES = ["xds.config.supports-resource-ttl", "xds.config.supports-resource-in-sotw"]


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
def test_t2_envoy_keeps_a_service_as_long_as_it_hears_of_it(
    control_plane: ControlPlane, start_envoy: Callable[..., Envoy], api_type: str
) -> None:
    endpoints = (Endpoint("127.0.0.1:1"),)
    control_plane.publish(
        ServiceSnapshot(name="brief", endpoints=endpoints, ttl=TTL),
        ServiceSnapshot(name="lasting", endpoints=endpoints),
    )
    configuration = bootstrap(control_plane, api_type)
    configuration["node"]["client_features"] = FEATURES
    envoy = start_envoy(configuration)
    wait_until(lambda: envoy.hosts("brief"), "an endpoint")
    time.sleep(1.5 * TTL)
    assert envoy.hosts("brief")
    assert envoy.hosts("lasting")
    assert control_plane.nacks == []
    control_plane.stop()
    wait_until(lambda: "brief" not in envoy.clusters(), "the TTL")
    assert envoy.hosts("lasting")
    control_plane.start()
    control_plane.publish(*(ServiceSnapshot(name=name, endpoints=endpoints) for name in ("brief", "lasting")))
    wait_until(lambda: envoy.hosts("brief"), "it is back")
