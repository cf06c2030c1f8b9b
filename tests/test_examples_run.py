"""`python -m examples.run`: it starts, what it prints works, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbcore.config import load
from tests.harness.process import Process
from tests.harness.service import ROOT


@pytest.fixture
def run() -> Iterator[Process]:
    """The running example, everything printed."""
    with Process([sys.executable, "-m", "examples.run"], cwd=ROOT, grace=30) as process:
        process.wait_for_output("^Ctrl-C")
        yield process


def commands(run: Process) -> list[list[str]]:
    """The three commands that it tells people to try."""
    lines = run.stdout.partition("Three commands")[2].splitlines()
    return [shlex.split(line) for line in lines if line.startswith("  ")]


def backends(run: Process) -> list[str]:
    """The addresses of the service `web`."""
    found = re.search(r"^lbcore serves (.+)$", run.stdout, re.MULTILINE)
    assert found
    web = next(each for each in load(Path(found[1])).services if each.name == "web")
    return [each.address for each in web.endpoints]


def refused(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(30)
        return probe.connect_ex((host, int(port))) != 0


def test_the_three_commands_it_prints_work(run: Process) -> None:
    embedded, pick, curl = commands(run)
    addresses = backends(run)
    assert output(embedded).strip() in addresses
    assert output(pick).strip() in addresses
    assert all(f"web::{address}::weight::" in output(curl) for address in addresses)


def output(command: list[str]) -> str:
    with Process(command, cwd=ROOT) as process:
        assert process.wait() == 0, process.report()
        return process.stdout


def test_ctrl_c_ends_it_with_its_backends_and_its_service(run: Process) -> None:
    ports = re.findall(r"(?:gRPC .*|http://)(127\.0\.0\.1:\d+)$", run.stdout, re.MULTILINE)
    listening = [*backends(run), *ports]
    assert len(listening) == 5
    assert [address for address in listening if refused(address)] == []
    run.signal(signal.SIGINT)
    assert run.wait() == 0, run.report()
    assert [address for address in listening if not refused(address)] == []
