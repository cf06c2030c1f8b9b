"""Which announcements are let in: what would break an xDS client is refused, alone or together with what is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lbcore.errors import InvalidSetting
from lbcore.model import MAX_WEIGHT, Endpoint, Locality
from lbcore.registration import Announcement, Key, check_announcement, of_each
from lbcore.validation import refusal

__all__ = ["Weights", "check_announcements"]

_Place = tuple[str, int, Locality]


class Weights:
    """The sum of weights in each service, priority and locality; xDS has 32 bits for it (gRFC A27)."""

    def __init__(self) -> None:
        self._sums: dict[_Place, int] = {}

    def add(self, service: str, endpoint: Endpoint) -> None:
        """Counts an endpoint."""
        place = (service, endpoint.priority, endpoint.locality)
        self._sums[place] = self._sums.get(place, 0) + endpoint.weight

    def remove(self, service: str, endpoint: Endpoint) -> None:
        """Counts it no more."""
        place = (service, endpoint.priority, endpoint.locality)
        self._sums[place] -= endpoint.weight
        if not self._sums[place]:
            del self._sums[place]

    def check(self, changes: Sequence[tuple[str, Endpoint, int]]) -> None:
        """Refuses changes, each an endpoint that comes (+1) or goes (-1), that would overflow a sum."""
        added: dict[_Place, int] = {}
        for service, endpoint, sign in changes:
            place = (service, endpoint.priority, endpoint.locality)
            added[place] = added.get(place, 0) + sign * endpoint.weight
        for place, weight in added.items():
            total = self._sums.get(place, 0) + weight
            if total > MAX_WEIGHT:
                service, priority, locality = place
                where = f"service {service!r}, priority {priority}, locality {str(locality)!r}"
                raise InvalidSetting(f"weight: those of {where} would add up to {total}, expected at most {MAX_WEIGHT}")


def check_announcements(
    announcements: Sequence[Announcement], announced: Callable[[Key], Endpoint | None], weights: Weights
) -> None:
    """Refuses what must not be registered. Raises `InvalidSetting` naming the field.

    `announced` has what is announced under a key now.
    """
    of_each("announcements", announcements, check_announcement)
    changes: list[tuple[str, Endpoint, int]] = []
    keys: set[Key] = set()
    for announcement in announcements:
        if announcement.key in keys:
            raise refusal("address", announcement.key.address, "expected each address of a service once")
        keys.add(announcement.key)
        changes.append((announcement.service, announcement.endpoint, 1))
        if (before := announced(announcement.key)) is not None:
            changes.append((announcement.service, before, -1))
    weights.check(changes)
