"""`Membership`: the endpoints that discovery knows of a service, and how they join those of its definition.

A service has at most one definition (settings, and perhaps endpoints) and any number of memberships (a registry, a DNS
name, …). Of two that say something of the same address or locality the one that comes first decides: the definition,
then the memberships in the order in which their sources were first heard of. So what an operator has written down is
never overruled by what announces itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from operator import attrgetter

from lbcore.errors import InvalidSetting
from lbcore.model import Endpoint, Locality
from lbcore.schema import with_fields
from lbcore.snapshot import ServiceSnapshot, endpoint_mistakes, weight_mistakes

__all__ = ["Membership", "check_membership", "joined"]

_MOST_TOLD = 5  # mistakes; a list of a hundred thousand endpoints may have as many

_ADDRESS, _MORE_ADDRESSES = attrgetter("address"), attrgetter("additional_addresses")


@dataclass(frozen=True, slots=True)
class Membership:
    """What one source says of who belongs to a service.

    Fields:
        endpoints: in the order that ties follow.
        locality_weights: relative shares of localities, where the source knows them.
    """

    endpoints: tuple[Endpoint, ...] = ()
    locality_weights: Mapping[Locality, int] = field(default_factory=dict)


def check_membership(membership: Membership) -> None:
    """Raises `InvalidSetting` where no service could have these members."""
    endpoints, weights = membership.endpoints, membership.locality_weights
    mistakes = tuple(islice(chain(endpoint_mistakes(endpoints), weight_mistakes(endpoints, weights)), _MOST_TOLD))
    if mistakes:
        raise InvalidSetting(*mistakes)


def joined(definition: ServiceSnapshot, memberships: Iterable[Membership]) -> ServiceSnapshot:
    """The definition with the members that it does not have yet. Raises `InvalidSetting` where they contradict it.

    >>> written = ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80", weight=5),))
    >>> announced = Membership((Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:80")))
    >>> [(each.address, each.weight) for each in joined(written, [announced]).endpoints]
    [('10.0.0.1:80', 5), ('10.0.0.2:80', 1)]
    """
    said = [Membership(definition.endpoints, definition.locality_weights), *memberships]
    weights: dict[Locality, int] = {}
    for membership in said:
        for place, weight in membership.locality_weights.items():
            weights.setdefault(place, weight)
    endpoints = tuple(chain.from_iterable(membership.endpoints for membership in said))
    if not _are_distinct(endpoints):
        endpoints = tuple(_first_of_each(endpoints))
    return with_fields(definition, endpoints=endpoints, locality_weights=weights)


def _are_distinct(endpoints: tuple[Endpoint, ...]) -> bool:
    """Whether a glance shows that no address is there twice, as mostly; it costs a tenth of looking at each."""
    return len(set(map(_ADDRESS, endpoints))) == len(endpoints) and not any(map(_MORE_ADDRESSES, endpoints))


def _first_of_each(endpoints: Iterable[Endpoint]) -> Iterator[Endpoint]:
    taken: set[str] = set()
    for endpoint in endpoints:
        if taken.isdisjoint(addresses := _addresses(endpoint)):
            yield endpoint
            taken.update(addresses)


def _addresses(endpoint: Endpoint) -> tuple[str, ...]:
    return (endpoint.address, *endpoint.additional_addresses)
