"""Assignments: a thousand endpoints put together, and again after one of them changed, beside protobuf's own messages.

`python -m bench.xds_fleet` measures the server with its streams.
"""

from __future__ import annotations

from dataclasses import replace

from envoy.config.endpoint.v3 import endpoint_pb2

from bench.conftest import Versus
from bench.loop import Loop
from lbcore.model import Endpoint
from lbcore.snapshot import ServiceSnapshot
from lbcore.xds.assignments import Frames, assignment, encoded_endpoints
from lbcore.xds.wire import Resource

ENDPOINTS = 1000
LOCALITIES = 20


def service() -> ServiceSnapshot:
    members = (Endpoint(f"10.0.{n >> 8}.{n & 255}:8080", locality=f"eu/z{n % LOCALITIES}") for n in range(ENDPOINTS))
    return ServiceSnapshot(name="web", endpoints=tuple(members))


def build(web: ServiceSnapshot) -> Resource:
    endpoints = encoded_endpoints(web, unix_sockets=True)
    return assignment(web, endpoints, Frames.of(web, endpoints))


def test_build(versus: Versus) -> None:
    web = service()
    message = content(build(web))
    versus(
        "assignment, 1000 endpoints",
        Loop("build(web)", {"build": build, "web": web}, 20),
        "protobuf: a message, serialised",
        Loop("message.SerializeToString()", {"message": message}, 20),
        limit=0.3e-3,
    )


def test_one_changed(versus: Versus) -> None:
    web = service()
    before = encoded_endpoints(web, unix_sockets=True)
    frames = Frames.of(web, before)
    changed = Endpoint(web.endpoints[500].address, weight=2, locality=web.endpoints[500].locality)
    after = replace(web, endpoints=(*web.endpoints[:500], changed, *web.endpoints[501:]))

    def follow() -> Resource:
        endpoints = encoded_endpoints(after, before, unix_sockets=True)
        return assignment(after, endpoints, Frames.of(after, endpoints, previous=frames))

    versus(
        "the same, one endpoint changed",
        Loop("follow()", {"follow": follow}, 200),
        "all of it built",
        Loop("build(web)", {"build": build, "web": web}, 20),
        goal=0.05,
    )


def content(resource: Resource) -> endpoint_pb2.ClusterLoadAssignment:
    framed = resource.framed
    start = 1
    while framed[start] & 0x80:
        start += 1
    return endpoint_pb2.ClusterLoadAssignment.FromString(endpoint_any(framed[start + 1 :]))


def endpoint_any(packed: bytes) -> bytes:
    from google.protobuf import any_pb2

    return bytes(any_pb2.Any.FromString(packed).value)
