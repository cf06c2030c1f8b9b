"""`make run` where its usual ports are taken: the fleet of examples/run.py starts on others, and says so."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.harness.http_client import HttpClient
from tests.harness.process import Process

ROOT = Path(__file__).parents[1]
USUAL_PORTS = (8081, 9901, 18000)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Process]:
    """A fleet that finds its usual ports taken; by this test, or by whoever else runs on this machine."""
    with ExitStack() as running:
        for port in USUAL_PORTS:
            with suppress(OSError):
                running.enter_context(socket.create_server(("127.0.0.1", port)))
        process = running.enter_context(Process([sys.executable, "-u", "-m", "examples.run"], cwd=ROOT, grace=30))
        process.wait_for_output("Ctrl-C stops everything")
        yield process


def commands(fleet: Process) -> list[str]:
    """The commands that it proposes."""
    return re.findall(r"^  (\S*python\S* .+|curl .+)$", fleet.stdout, re.MULTILINE)


def run(command: str) -> str:
    ended = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("port", USUAL_PORTS)
def test_a_taken_port_is_told_and_another_used(fleet: Process, port: int) -> None:
    assert f"port {port} is taken" in fleet.stdout
    assert f"127.0.0.1:{port}\n" not in fleet.stdout


def test_the_embedded_pick_and_the_asked_one_agree(fleet: Process) -> None:
    embedded, asked, _ = commands(fleet)
    assert run(embedded) == run(asked)


def test_the_picked_address_is_a_backend_that_answers_with_it(fleet: Process) -> None:
    address = run(commands(fleet)[1]).strip()
    with HttpClient(address) as client:
        assert client.get("/").body.decode().strip() == address


def test_the_page_for_curl_shows_the_clusters(fleet: Process) -> None:
    address, _, path = commands(fleet)[2].removeprefix("curl http://").partition("/")
    with HttpClient(address) as client:
        assert b"web::observability_name::web" in client.get(f"/{path}").body
