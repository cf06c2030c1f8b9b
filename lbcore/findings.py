"""`Findings`: what active checks have found of a service's endpoints, and how it goes over what discovery says.

An endpoint must please both: one that discovery takes out stays out, one that fails its checks goes out. What has not
been checked is not known to be bad: it is held out only while others that have passed can stand in for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lbcore.model import CheckedHealth, Endpoint, Health
from lbcore.schema import with_fields
from lbcore.snapshot import ServiceSnapshot

__all__ = ["UNCHECKED", "Findings", "checked"]

UNCHECKED = CheckedHealth(passing=False, reason="not checked yet")
_USABLE = (Health.UNKNOWN, Health.HEALTHY, Health.DEGRADED)


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of one service.

    Fields:
        by_address: of the endpoints that have been checked.
        hold_new: whether an endpoint that is not among them waits for its first check; False in the first round.
    """

    by_address: Mapping[str, CheckedHealth] = field(default_factory=dict)
    hold_new: bool = False

    def of(self, address: str) -> CheckedHealth | None:
        """What was found of an endpoint; None where that is nothing, and nothing is to be done about it."""
        return self.by_address.get(address, UNCHECKED if self.hold_new else None)


def checked(
    service: ServiceSnapshot, findings: Findings, before: tuple[Endpoint, ...] | None = None
) -> ServiceSnapshot:
    """The service with the health that follows; itself where nothing does.

    `before` are the endpoints that were made of the same service's last; those that still fit are used again.

    >>> web = ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:80")))
    >>> found = Findings({"10.0.0.1:80": CheckedHealth(), "10.0.0.2:80": CheckedHealth(passing=False)})
    >>> [endpoint.health.name for endpoint in checked(web, found).endpoints]
    ['HEALTHY', 'UNHEALTHY']
    """
    made = service.endpoints if before is None else before
    endpoints = _with(service.endpoints, findings, made)
    if findings.hold_new and not any(endpoint.health in _USABLE for endpoint in endpoints):
        endpoints = _with(service.endpoints, Findings(findings.by_address), made)
    if all(new is old for new, old in zip(endpoints, service.endpoints, strict=True)):
        return service
    return with_fields(service, endpoints=endpoints)


def _with(endpoints: tuple[Endpoint, ...], findings: Findings, made: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    return tuple(
        _with_health(endpoint, findings.of(endpoint.address), last)
        for endpoint, last in zip(endpoints, made, strict=True)
    )


def _with_health(endpoint: Endpoint, found: CheckedHealth | None, last: Endpoint) -> Endpoint:
    health = endpoint.health if found is None else found.over(endpoint.health)
    if health is endpoint.health:
        return endpoint
    return last if health is last.health else with_fields(endpoint, health=health)
