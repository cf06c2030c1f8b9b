"""The Envoy of `examples/envoy.yaml`, which takes everything from the server under test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.harness.control_plane import ControlPlane
from tests.harness.envoy import Envoy
from tests.harness.process import wait_until
from tests.harness.service import LbcoreService

EXAMPLE = Path(__file__).parents[2] / "examples" / "envoy.yaml"


def bootstrap(control_plane: ControlPlane | LbcoreService, api_type: str) -> dict[str, Any]:
    """The example with the server's port; `api_type` is GRPC (state of the world) or DELTA_GRPC."""
    if isinstance(control_plane, ControlPlane):
        return bootstrap_from(control_plane.port, api_type)
    return bootstrap_from(int(control_plane.grpc.rpartition(":")[2]), api_type)


def bootstrap_from(port: int, api_type: str) -> dict[str, Any]:
    """The same for a server at this port."""
    configuration: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    configuration["dynamic_resources"]["ads_config"]["api_type"] = api_type
    (cluster,) = configuration["static_resources"]["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
    return configuration


def listening(envoy: Envoy) -> str:
    """Where Envoy's listener is, once it has it."""
    wait_until(lambda: "in" in envoy.listeners(), "the listener")
    return envoy.listeners()["in"]
