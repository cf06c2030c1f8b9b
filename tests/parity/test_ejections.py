"""Real clients that lbcore feeds eject as its core does under the same history: whom, how many, and for how long.

Envoy tells it in its admin and its event log, a gRPC client by whom it calls. Of its own the core never ejects the last
usable endpoint of a priority; no history here gets there.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lbcore import Cluster, NoEndpointAvailable, RoundRobin, VirtualClock
from lbcore.directory import ServiceSnapshot
from lbcore.model import Endpoint
from lbcore.routing import Listener, Route
from lbcore.settings import OutlierDetection
from tests.harness.backends import HttpBackends
from tests.harness.control_plane import ControlPlane
from tests.harness.envoy import Envoy
from tests.harness.grpc_backends import GrpcBackends
from tests.harness.http_client import HttpClient
from tests.harness.ports import free_port
from tests.harness.process import wait_until
from tests.parity.example_client import Caller
from tests.parity.example_envoy import bootstrap, listening

SIZES = (1, 2, 3, 9, 10, 20)
PERCENTS = (10, 50)
EJECTED = {  # by size and percent; half of each fails, rounded down
    "1-10": 0,
    "2-10": 0,
    "3-10": 0,
    "9-10": 0,
    "10-10": 1,
    "20-10": 2,
    "1-50": 0,
    "2-50": 1,
    "3-50": 1,
    "9-50": 4,
    "10-50": 5,
    "20-50": 10,
}
LONG = OutlierDetection(consecutive_5xx=3, interval=600.0, base_ejection_time=600.0, max_ejection_time=600.0)


class Core:
    """lbcore's cluster of the same endpoints, under the history that a client has had."""

    def __init__(self, service: ServiceSnapshot) -> None:
        self.clock = VirtualClock()
        self._cluster = Cluster(
            service.name,
            service.endpoints,
            policy=RoundRobin(),
            panic_threshold=0,
            outlier_detection=service.outlier_detection,
            clock=self.clock,
        )

    def answered(self, address: str, status: int) -> None:
        """One request to that endpoint has ended so; nothing where it is out, and the client had not noticed yet."""
        others = [each for each in self._cluster.endpoints if each.address != address]
        try:
            self._cluster.acquire(exclude=others).done(status=status)
        except NoEndpointAvailable:
            assert address in self.ejected()

    def tick(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self._cluster.tick()

    def ejected(self) -> set[str]:
        return {each.endpoint.address for each in self._cluster.stats().endpoints if each.ejected}


def service(name: str, addresses: list[str], detection: OutlierDetection) -> ServiceSnapshot:
    return ServiceSnapshot(
        name=name,
        endpoints=tuple(map(Endpoint, addresses)),
        policy=RoundRobin(),
        panic_threshold=0,
        outlier_detection=detection,
    )


def ejected_by(envoy: Envoy, name: str) -> set[str]:
    hosts = envoy.hosts(name).items()
    return {address for address, host in hosts if host["health_status"].get("failed_outlier_check", False)}


def ask(client: HttpClient, path: str, core: Core) -> None:
    """Has Envoy send a request, and the core hear what became of it."""
    answer = client.get(path)
    core.answered(answer.headers["x-backend"], answer.status)


def test_envoy_ejects_the_same_hosts_and_as_many(
    control_plane: ControlPlane, start_envoy: Callable[..., Envoy], start_backends: Callable[..., HttpBackends]
) -> None:
    backends = start_backends(["127.0.0.1"] * max(SIZES))
    for address in backends.addresses[1::2]:
        backends.behave(address, status=503)
    services = {
        f"{size}-{percent}": service(
            f"{size}-{percent}",
            backends.addresses[:size],
            replace(LONG, max_ejection_percent=percent),
        )
        for size in SIZES
        for percent in PERCENTS
    }
    routes = tuple(Route(prefix=f"/{name}/", service=name) for name in services)
    listener = Listener(name="in", address=f"127.0.0.1:{free_port()}", routes=routes)
    control_plane.publish(*services.values(), listeners=[listener])
    envoy = start_envoy(bootstrap(control_plane, "DELTA_GRPC"))
    expected = {}
    with HttpClient(listening(envoy)) as client:
        for name, each in services.items():
            wait_until(lambda: len(envoy.hosts(name)) == len(each.endpoints), f"the hosts of {name}")  # noqa: B023
            core = Core(each)
            for number in range(60 * len(each.endpoints)):
                ask(client, f"/{name}/", core)
                if len(core.ejected()) == EJECTED[name] and number >= 6 * len(each.endpoints):
                    break
            expected[name] = core.ejected()
            wait_until(lambda: ejected_by(envoy, name) == expected[name], f"ejections of {name}: {expected[name]}")  # noqa: B023
    assert {name: len(addresses) for name, addresses in expected.items()} == EJECTED
    for name in services:  # nobody has followed
        assert ejected_by(envoy, name) == expected[name]
        statistic = f"cluster.{name}.outlier_detection.ejections_enforced_consecutive_5xx"
        assert envoy.stats(statistic)[statistic] == EJECTED[name]
    assert control_plane.nacks == []


def test_envoy_lets_a_host_return_as_the_core_does_and_tells_the_same_events(
    control_plane: ControlPlane,
    start_envoy: Callable[..., Envoy],
    start_backends: Callable[..., HttpBackends],
    tmp_path: Path,
) -> None:
    base, interval = 1.0, 0.25  # seconds
    backends = start_backends(["127.0.0.1"] * 3)
    sick = backends.addresses[1]
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    detection = OutlierDetection(
        consecutive_5xx=2,
        interval=interval,
        base_ejection_time=base,
        max_ejection_percent=50,
        event_log_path=str(ours),
    )
    web = service("web", backends.addresses, detection)
    core = Core(web)
    listener = Listener(name="in", address=f"127.0.0.1:{free_port()}", routes=(Route(prefix="/", service="web"),))
    control_plane.publish(web, listeners=[listener])
    configuration = bootstrap(control_plane, "GRPC")
    configuration["cluster_manager"] = {"outlier_detection": {"event_log_path": str(theirs)}}
    envoy = start_envoy(configuration)
    with HttpClient(listening(envoy)) as client:
        for ejection in (1, 2):
            backends.behave(sick, status=500)
            while sick not in core.ejected():
                ask(client, "/", core)
            backends.behave(sick)
            wait_until(lambda: len(events(theirs)) == 2 * ejection, "the ejection and the return")  # noqa: B023
            lasted = 0.0
            while core.ejected():
                core.tick(interval)
                lasted += interval
            assert base * ejection <= lasted <= base * ejection + interval
    told = [("EJECT", 1, True), ("UNEJECT", 1, False), ("EJECT", 2, True), ("UNEJECT", 2, False)]
    for log in (ours, theirs):
        assert [(each["action"], each["num_ejections"], each["enforced"]) for each in events(log)] == told
        assert {each["upstream_url"] for each in events(log)} == {sick}
        assert {each["type"] for each in events(log)} == {"CONSECUTIVE_5XX"}
        assert {each["cluster_name"] for each in events(log)} == {"web"}
    assert {key for each in events(theirs) for key in each} <= {key for each in events(ours) for key in each}
    moments = [when(each) for each in events(theirs)]
    # By Envoy's own clock. The second may be as short as the first, where the host was back for an interval meanwhile.
    assert all(ended - began >= 0.5 * base for began, ended in (moments[:2], moments[2:])), moments
    assert control_plane.nacks == []


def events(log: Path) -> list[dict[str, Any]]:
    """Without a line that is still being written."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def when(event: dict[str, Any]) -> float:
    return datetime.datetime.fromisoformat(event["timestamp"].rstrip("Z")[:23]).timestamp()


BY_PERCENTAGE = {
    "enforcing_success_rate": 0,
    "enforcing_failure_percentage": 100,
    "failure_percentage_threshold": 50,
    "failure_percentage_minimum_hosts": 1,
    "failure_percentage_request_volume": 3,
    "interval": 1.0,
}


def judged_by_the_core(web: ServiceSnapshot, failing: set[str], detection: OutlierDetection) -> set[str]:
    """Whom the core ejects where each endpoint has been asked often enough."""
    core = Core(web)
    for endpoint in web.endpoints:
        for _ in range(10):
            core.answered(endpoint.address, 503 if endpoint.address in failing else 200)
    core.tick(detection.interval)
    return core.ejected()


def called(caller: Caller, mark: int) -> set[str]:
    """Whom it has called since then, whatever they answered."""
    return {line.split()[-1] for line in caller.lines[mark:]}


def settles_on(caller: Caller, wanted: Callable[[set[str]], bool], least: int) -> Callable[[], bool]:
    """Whether so many calls more go to whom they should."""

    def settled() -> bool:
        mark = caller.mark()
        caller.wait_for_more(mark, least)
        return wanted(called(caller, mark))

    return settled


def test_a_grpc_client_ejects_whom_the_core_ejects_and_lets_them_return(
    control_plane: ControlPlane, call_as: Callable[..., Caller]
) -> None:
    detection = OutlierDetection(
        algorithm="grpc",
        base_ejection_time=1.0,
        max_ejection_percent=100,
        **BY_PERCENTAGE,  # type: ignore[arg-type]
    )
    with GrpcBackends(["127.0.0.1:0"] * 5) as backends:
        everybody = set(backends.addresses)
        backends.failing = set(backends.addresses[:2])
        web = service("web", backends.addresses, detection)
        control_plane.publish(web)
        caller = call_as("sync", "xds:///web")
        stays = everybody - judged_by_the_core(web, backends.failing, detection)
        assert stays == everybody - backends.failing
        wait_until(settles_on(caller, lambda seen: seen == stays, 25), "calls to those that do well alone")
        backends.failing = set()
        wait_until(settles_on(caller, lambda seen: seen == everybody, 50), "calls to all again")
    assert control_plane.nacks == []


@pytest.mark.parametrize("size", [3, 10, 20])
def test_a_grpc_client_ejects_as_many_as_the_core(
    control_plane: ControlPlane, call_as: Callable[..., Caller], size: int
) -> None:
    """The percentage is tested before an ejection: 10 % of three still eject one."""
    detection = OutlierDetection(
        algorithm="grpc",
        base_ejection_time=600.0,
        max_ejection_time=600.0,
        max_ejection_percent=10,
        **BY_PERCENTAGE,  # type: ignore[arg-type]
    )
    with GrpcBackends(["127.0.0.1:0"] * size) as backends:
        backends.failing = set(backends.addresses)
        web = service("web", backends.addresses, detection)
        control_plane.publish(web)
        caller = call_as("sync", "xds:///web")
        wanted = size - len(judged_by_the_core(web, backends.failing, detection))
        assert wanted == {3: 2, 10: 9, 20: 18}[size]
        wait_until(settles_on(caller, lambda seen: len(seen) == wanted, 6 * size), f"calls to {wanted} of {size}")
        # And nobody follows.
        assert settles_on(caller, lambda seen: len(seen) == wanted, 6 * size)()
    assert control_plane.nacks == []
