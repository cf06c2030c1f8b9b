"""A registry over three members of etcd, all of it killed or cut off in turn: no request to a living backend fails."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.harness.etcd import needs_etcd
from tests.parity.registry_outages import Outages

pytestmark = needs_etcd


def test_nothing_that_fails_costs_a_request(tmp_path: Path) -> None:
    with ExitStack() as running:
        report = Outages(tmp_path, running).run(partition=6.0, registrations=1000)
    assert (report.failures, report.requests > 500) == ([], True)
