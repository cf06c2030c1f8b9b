"""Which announcements are let in: what would break an xDS client is refused, alone or together with what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lbcore.errors import InvalidSetting
from lbcore.model import MAX_WEIGHT, Endpoint, Locality
from lbcore.registration import Announcement, check_announcement, of_each
from lbcore.validation import refusal

__all__ = ["Weights", "check_announcements"]

_Place = tuple[int, Locality]


class Weights:
    """The sum of weights in each service. xDS has 32 bits for that of a priority and locality (gRFC A27)."""

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}

    def add(self, service: str, endpoint: Endpoint) -> None:
        """Counts an endpoint."""
        self._sums[service] = self._sums.get(service, 0) + endpoint.weight

    def remove(self, service: str, endpoint: Endpoint) -> None:
        """Counts it no more."""
        left = self._sums[service] - endpoint.weight
        if left:
            self._sums[service] = left
        else:
            del self._sums[service]

    def may_overflow(self, added: Iterable[Announcement]) -> set[str]:
        """The services in which some priority and locality may have too much weight with what is added."""
        sums: dict[str, int] = {}
        for service, endpoint in added:
            sums[service] = sums.get(service, 0) + endpoint.weight
        return {service for service, weight in sums.items() if self._sums.get(service, 0) + weight > MAX_WEIGHT}


def check_announcements(
    announcements: Sequence[Announcement], announced: Callable[[str], Iterable[Endpoint]], weights: Weights
) -> None:
    """Refuses what must not be registered. Raises `InvalidSetting` naming the field.

    `announced` has the endpoints that are announced for a service now.
    """
    of_each("announcements", announcements, check_announcement)
    keys: set[tuple[str, str]] = set()
    for service, endpoint in announcements:
        if (service, endpoint.address) in keys:
            raise refusal("address", endpoint.address, "expected each address of a service once")
        keys.add((service, endpoint.address))
    for service in weights.may_overflow(announcements):
        _check_sums(service, announced(service), [each.endpoint for each in announcements if each.service == service])


def _check_sums(service: str, present: Iterable[Endpoint], added: Sequence[Endpoint]) -> None:
    replaced = {endpoint.address for endpoint in added}
    sums: dict[_Place, int] = {}
    for endpoint in (*added, *(each for each in present if each.address not in replaced)):
        place = (endpoint.priority, endpoint.locality)
        sums[place] = sums.get(place, 0) + endpoint.weight
    for (priority, locality), total in sums.items():
        if total > MAX_WEIGHT:
            where = f"service {service!r}, priority {priority}, locality {str(locality)!r}"
            raise InvalidSetting(f"weight: those of {where} would add up to {total}, expected at most {MAX_WEIGHT}")
