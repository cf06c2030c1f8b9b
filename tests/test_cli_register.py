"""`lbcore register`, `deregister` and `drain`: a program that knows nothing of the registry is in it while it runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbcore.model import Health
from lbcore.registration import Registration
from tests.harness.ports import free_port
from tests.harness.process import Process, wait_until
from tests.harness.registry_server import RegistryServer
from tests.harness.service import LBCORE, ROOT, lbcore


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as running:
        yield running


def listed(server: RegistryServer) -> dict[str, Registration]:
    return server.call(lambda: {each.endpoint.address: each for each in server.registry.registrations()})


def web_server(port: int) -> list[str]:
    return [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]


def register(server: RegistryServer, address: str, *arguments: str) -> Process:
    options = ["--server", server.address, "--ttl", "5", "--drain-time", "0.3", "--weight", "3", "--metadata", "v=2"]
    return Process([*LBCORE, "register", "web", address, *options, *arguments], cwd=ROOT)


def test_a_wrapped_program_is_registered_while_it_runs_and_drained_before_it_ends(server: RegistryServer) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    with register(server, address, "--drain-time", "2", "--", *web_server(port)) as process:
        wait_until(lambda: address in listed(server), "the registration")
        found = listed(server)[address].endpoint
        process.signal(signal.SIGTERM)
        wait_until(lambda: listed(server)[address].endpoint.health is Health.DRAINING, "the drain")
        assert process.alive
        process.signal(signal.SIGTERM)  # cuts the drain short
        code = process.wait()
    assert (found.weight, dict(found.metadata)) == (3, {"v": "2"})
    assert (code, listed(server)) == (128 + signal.SIGTERM, {})


def test_a_program_that_ends_by_itself_is_withdrawn_and_its_exit_code_handed_on(
    server: RegistryServer, tmp_path: Path
) -> None:
    over = tmp_path / "over"
    program = (
        f"import pathlib, time\nwhile not pathlib.Path({str(over)!r}).exists(): time.sleep(0.05)\nraise SystemExit(7)"
    )
    with register(server, "127.0.0.1:9", "--at-once", "--", sys.executable, "-c", program) as process:
        wait_until(lambda: "127.0.0.1:9" in listed(server), "the registration")
        over.touch()
        assert (process.wait(), listed(server)) == (7, {})


def test_a_program_that_never_listens_is_never_registered(server: RegistryServer) -> None:
    with register(
        server, f"127.0.0.1:{free_port()}", "--", sys.executable, "-c", "import time; time.sleep(1)"
    ) as process:
        assert process.wait() == 0
    assert server.call(lambda: server.registry.revision) == 0


def test_without_a_command_it_registers_until_a_signal(server: RegistryServer) -> None:
    with register(server, "10.0.0.1:80") as process:
        wait_until(lambda: "10.0.0.1:80" in listed(server), "the registration")
        process.signal(signal.SIGINT)
        assert (process.wait(), listed(server)) == (0, {})


def test_a_command_that_cannot_be_run_is_said(server: RegistryServer) -> None:
    ended = lbcore("register", "web", "10.0.0.1:80", "--server", server.address, "--", "/no/such/program")
    assert (ended.code, "cannot run '/no/such/program': No such file" in ended.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a b", "10.0.0.1:80"], "service 'a b': expected printable characters"),
        (["web", "10.0.0.1:0"], "address '10.0.0.1:0': expected a port"),
        (["web", "10.0.0.1:80", "--ttl", "0"], "ttl 0.0: expected a number"),
        (["web", "10.0.0.1:80", "--metadata", "v"], "'v': expected KEY=VALUE"),
    ],
)
def test_a_bad_argument_is_refused_before_the_program_starts(
    arguments: list[str], expected: str, tmp_path: Path
) -> None:
    ended = lbcore("register", *arguments, "--", "touch", tmp_path / "started")
    assert (ended.code, expected in ended.stderr, (tmp_path / "started").exists()) == (2, True, False)


def test_draining_and_deregistering(server: RegistryServer) -> None:
    with register(server, "10.0.0.1:80"):
        wait_until(lambda: "10.0.0.1:80" in listed(server), "the registration")
        drain = lbcore("drain", "web", "10.0.0.1:80", "--server", server.address)
        assert (drain.code, listed(server)["10.0.0.1:80"].endpoint.health) == (0, Health.DRAINING)
        assert lbcore("drain", "web", "10.0.0.1:80", "--undo", "--server", server.address).code == 0
        assert listed(server)["10.0.0.1:80"].endpoint.health is Health.UNKNOWN
        assert lbcore("deregister", "web", "10.0.0.1:80", "--server", server.address).code == 0
        assert listed(server) == {}
        again = lbcore("deregister", "web", "10.0.0.1:80", "--server", server.address)
        assert (again.code, "10.0.0.1:80 of service 'web': not registered" in again.stderr) == (2, True)
