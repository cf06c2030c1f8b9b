"""`Membership`: the endpoints that discovery knows of a service, and how they join those of its definition.

A service has at most one definition (settings, and perhaps endpoints) and any number of memberships (a registry, a DNS
name, …). Of two that say something of the same address or locality the one that comes first decides: the definition,
then the memberships in the order in which their sources were first heard of. So what an operator has written down is
never overruled by what announces itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from lbcore.model import Endpoint, Locality
from lbcore.snapshot import ServiceSnapshot

__all__ = ["Membership", "joined"]


@dataclass(frozen=True, slots=True)
class Membership:
    """What one source says of who belongs to a service.

    Fields:
        endpoints: in the order that ties follow.
        locality_weights: relative shares of localities, where the source knows them.
    """

    endpoints: tuple[Endpoint, ...] = ()
    locality_weights: Mapping[Locality, int] = field(default_factory=dict)


def joined(definition: ServiceSnapshot, memberships: Iterable[Membership]) -> ServiceSnapshot:
    """The definition with the members that it does not have yet. Raises `InvalidSetting` where they contradict it.

    >>> written = ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80", weight=5),))
    >>> announced = Membership((Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:80")))
    >>> [(each.address, each.weight) for each in joined(written, [announced]).endpoints]
    [('10.0.0.1:80', 5), ('10.0.0.2:80', 1)]
    """
    endpoints = list(definition.endpoints)
    taken = {address for endpoint in endpoints for address in _addresses(endpoint)}
    weights = dict(definition.locality_weights)
    for membership in memberships:
        for endpoint in membership.endpoints:
            if taken.isdisjoint(addresses := _addresses(endpoint)):
                endpoints.append(endpoint)
                taken.update(addresses)
        for place, weight in membership.locality_weights.items():
            weights.setdefault(place, weight)
    return replace(definition, endpoints=tuple(endpoints), locality_weights=weights)


def _addresses(endpoint: Endpoint) -> tuple[str, ...]:
    return (endpoint.address, *endpoint.additional_addresses)
