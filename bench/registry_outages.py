"""Real etcd, replicas, agents and Envoy, killed, stopped and cut off under load: `python -m bench.registry_outages`.

Arguments: seconds for which etcd is cut off (30), and registrations (10000). Prints how long each step took and how
many requests failed.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.parity.registry_outages import Outages


def main(partition: float = 30.0, registrations: float = 10_000) -> None:
    with tempfile.TemporaryDirectory(prefix="lbcore-outages-") as folder, ExitStack() as running:
        outages = Outages(Path(folder), running)
        report = outages.run(partition=partition, registrations=int(registrations))
    for what, seconds in report.steps.items():
        print(f"{seconds:6.1f} s  {what}")
    print(f"{report.requests} requests, {len(report.failures)} failed")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
