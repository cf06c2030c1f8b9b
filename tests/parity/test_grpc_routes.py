"""What a service's `route` says, done by a real gRPC client: shares, faults, timeouts, retries; nearness."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lbcore.directory import ServiceSnapshot
from lbcore.fault import Fault, FaultAbort, FaultDelay
from lbcore.model import Endpoint
from lbcore.retry import RetryPolicy
from lbcore.routing import RouteAction
from tests.harness.control_plane import ControlPlane
from tests.harness.grpc_backends import GrpcBackends
from tests.harness.ports import free_port
from tests.harness.process import wait_until
from tests.parity.example_client import Caller


@pytest.fixture
def backends() -> Iterator[list[str]]:
    with GrpcBackends(["127.0.0.1:0"] * 2) as running:
        yield running.addresses


def test_shares_faults_timeouts_and_retries(
    control_plane: ControlPlane, call_as: Callable[..., Caller], backends: list[str]
) -> None:
    stable, canary = backends

    def publish(route: RouteAction | None) -> int:
        web = ServiceSnapshot(name="web", endpoints=(Endpoint(stable),), route=route)
        control_plane.publish(web, ServiceSnapshot(name="canary", endpoints=(Endpoint(canary),)))
        return caller.mark() if caller else 0

    caller: Caller | None = None
    publish(RouteAction(services={"web": 80, "canary": 20}))
    caller = call_as("sync", "xds:///web")
    caller.wait_for_more(0, 400)
    answers = caller.since(0)
    assert answers.keys() == {stable, canary}
    assert 0.08 <= answers[canary] / sum(answers.values()) <= 0.35  # 6 sigma

    publish(RouteAction(fault=Fault(abort=FaultAbort(grpc_status=10))))
    wait_until(lambda: any("ABORTED" in line for line in caller.failures), "an injected failure")
    publish(RouteAction(timeout=0.05, fault=Fault(delay=FaultDelay(fixed_delay=0.5))))
    wait_until(lambda: any("DEADLINE_EXCEEDED" in line for line in caller.failures), "the route's timeout")
    publish(RouteAction(retry=RetryPolicy(retry_on=("unavailable", "5xx"), num_retries=3)))
    mark = caller.mark()
    wait_until(lambda: caller.since(mark)[stable] > 20, "answers again")
    assert control_plane.nacks == []


def test_the_nearest_endpoints_come_first_and_a_second_address_counts(
    control_plane: ControlPlane, call_as: Callable[..., Caller], backends: list[str]
) -> None:
    far, near = backends
    dead = f"[::1]:{free_port()}"

    def publish(*, nearest_first: bool) -> None:
        endpoints = Endpoint(far, locality="us/c"), Endpoint(dead, locality="eu/a", additional_addresses=(near,))
        control_plane.publish(ServiceSnapshot(name="web", endpoints=endpoints, nearest_first=nearest_first))

    publish(nearest_first=True)
    caller = call_as("sync", "xds:///web", node={"locality": {"region": "eu", "zone": "b"}})
    caller.wait_for_more(0, 50)
    assert caller.since(0).keys() == {near}
    publish(nearest_first=False)
    wait_until(lambda: far in caller.since(0), "the far one")
    assert caller.failures == []
    assert control_plane.nacks == []
