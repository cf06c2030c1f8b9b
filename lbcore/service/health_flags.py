"""Why an endpoint is not plainly healthy, in the words of Envoy's `/clusters`.

Source: HostUtility::healthFlagsToString (source/common/upstream/host_utility.cc), in the order of its flags.
"""

from __future__ import annotations

from lbcore.model import CheckedHealth, Health

__all__ = ["health_flags"]


def health_flags(said: Health, found: CheckedHealth | None, *, ejected: bool = False) -> str:
    """The flags of what discovery says, checks have found and outlier detection does; `healthy` where there are none.

    >>> health_flags(Health.DEGRADED, CheckedHealth(passing=False, timed_out=True))
    '/failed_active_hc/degraded_eds_health/active_hc_timeout'
    """
    found = found or CheckedHealth()
    flags = {
        "/failed_active_hc": not found.passing,
        "/failed_outlier_check": ejected,
        "/failed_eds_health": said in (Health.UNHEALTHY, Health.TIMEOUT),
        "/degraded_active_hc": found.degraded,
        "/degraded_eds_health": said is Health.DEGRADED,
        "/excluded_via_immediate_hc_fail": found.excluded,
        "/active_hc_timeout": found.timed_out,
        "/eds_status_draining": said is Health.DRAINING,
    }
    return "".join(flag for flag, is_set in flags.items() if is_set) or "healthy"
