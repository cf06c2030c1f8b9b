"""A third of a fleet fails, recovers and fails again for a minute: `python -m bench.chaos [SECONDS]`.

Prints how many calls went well in spite of it, and what was left behind.
"""

from __future__ import annotations

import asyncio
import sys

from tests.resilience.fleet_in_trouble import FAILING, FLEET, trouble


def main(seconds: float = 60.0) -> None:
    report = asyncio.run(trouble(seconds))
    print(f"{FLEET} endpoints, {FAILING} of them in trouble twice within {seconds:g} s")
    print(f"calls {report.calls}, retries {report.retries}, success rate {report.success_rate:.5%}")
    for what, count in report.failures.most_common():
        print(f"  {count} x {what}")
    print(f"lost {len(report.lost)}, in flight {report.active}, open connections {report.open_connections}")
    print(f"tasks left {report.tasks_left}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
