"""How near two localities are, and what of a client's locality its view of a service depends on."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lbcore.model import Locality

__all__ = ["NOWHERE", "distance", "viewpoint"]

NOWHERE = Locality()
_FAR = 3


def distance(one: Locality, other: Locality) -> int:
    """0 in the same sub_zone, 1 in the same zone, 2 in the same region, else 3; nothing is near to nowhere.

    >>> distance(Locality("eu", "a", "rack1"), Locality("eu", "a", "rack2"))
    1
    """
    if not one.region or one.region != other.region:
        return _FAR
    if one.zone != other.zone:
        return 2
    return 1 if one.sub_zone != other.sub_zone else 0


def viewpoint(locality: Locality, places: Collection[Locality]) -> Locality:
    """A locality that is as far from each of the places as the given one, and the same for all that are.

    So what is made for a client is shared by all that see the places in the same order, whatever they say of theirs.
    """
    nearest = min((distance(locality, place) for place in places), default=_FAR)
    if nearest == _FAR:
        return NOWHERE
    if nearest == 0:
        return locality
    if nearest == 1:
        return Locality(locality.region, locality.zone, _unlike(place.sub_zone for place in places))
    return Locality(locality.region, _unlike(place.zone for place in places))


def _unlike(names: Iterable[str]) -> str:
    """A name that is none of these."""
    return f"{max(names)}~"
