"""A third of a fleet fails, recovers and fails again: callers do not notice, nobody is lost and nothing leaks.

`python -m bench.chaos` is the same for a minute.
"""

from __future__ import annotations

from tests.resilience.fleet_in_trouble import FLEET, trouble


async def test_callers_do_not_notice_that_a_third_of_the_fleet_fails() -> None:
    report = await trouble(8.0)
    assert report.success_rate >= 0.999, report.failures
    assert report.retries > 0
    assert report.lost == []
    assert len(report.served_after) == FLEET
    assert (report.active, report.open_connections, report.tasks_left) == (0, 0, 0)
