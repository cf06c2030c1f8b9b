"""Fixtures that start real parts and end them with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, settings

from lbcore.service.proto.picker_pb2_grpc import PickerStub
from tests.harness.backends import HttpBackends
from tests.harness.envoy import Envoy
from tests.harness.etcd import Etcd
from tests.harness.picker_server import PickerServer
from tests.harness.service import LbcoreService

# The same examples in every run, however slow the machine: a failure comes of a change, and never of a draw. Other ones
# are tried by `make unit ARGS=--hypothesis-profile=explore`.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("suite", settings.get_profile("explore"), derandomize=True)
settings.load_profile("suite")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test of the parts around the core may be run once more where it failed; the summary lists each such test.

    Those meet other programs, sockets and clocks, which a busy machine may upset; what broke for good fails both times.
    The core's tests meet none of these: a failure there is never chance.
    """
    if not config.pluginmanager.hasplugin("rerunfailures"):  # `-p no:rerunfailures` shows every failure
        return
    core = Path(__file__).parent / "core"
    for item in items:
        if core not in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture
def start_envoy() -> Iterator[Callable[..., Envoy]]:
    """`start_envoy(bootstrap, ...)` as `Envoy(...)`, live when it returns."""
    with ExitStack() as running:
        yield lambda *args, **options: running.enter_context(Envoy(*args, **options))


@pytest.fixture
def start_backends() -> Iterator[Callable[..., HttpBackends]]:
    """`start_backends(hosts)` as `HttpBackends(hosts)`, listening when it returns."""
    with ExitStack() as running:
        yield lambda *args: running.enter_context(HttpBackends(*args))


@pytest.fixture
def start_picker() -> Iterator[Callable[..., PickerServer]]:
    """`start_picker(*services, ...)` as `PickerServer(...)`, listening when it returns."""
    with ExitStack() as running:
        yield lambda *args, **options: running.enter_context(PickerServer(*args, **options))


@pytest.fixture
def stub_of() -> Iterator[Callable[[PickerServer], PickerStub]]:
    """The generated stub of a server, its channel closed after the test."""
    with ExitStack() as open_channels:
        yield lambda server: PickerStub(open_channels.enter_context(grpc.insecure_channel(server.address)))


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[Callable[[str], LbcoreService]]:
    """`start_service(configuration)`: `lbcore serve` of a file with that content, ready when it returns."""
    with ExitStack() as running:
        yield lambda configuration: running.enter_context(LbcoreService(tmp_path, configuration))


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    """An etcd of the test's own, answering; for tests marked `needs_etcd`."""
    with Etcd() as running:
        yield running
