"""All resources of one type, as one kind of client sees them, at one moment. Immutable; what is costly is made once.

Resources are encoded when first asked for, and a response is kept for every other stream that is owed the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

from lbcore.xds.nonces import SharedMessage
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.wire import Resource, delta_body, sotw_body

__all__ = ["ABSENT", "Difference", "ResourceSet", "version_of_all", "version_of_sum"]

ABSENT = ""
"""In place of a version: there is no such resource."""

_UINT64_MAX = (1 << 64) - 1
_MOST_DIFFERENCES = 64
_MOST_SHARED = 64  # kept for one set; above that, streams are owed such different things that nothing is shared

Made = TypeVar("Made")


class ResourceSet:
    """The resources of one type by name.

    Arguments:
        members: by name, what `encode` makes the resource of; None where there is none that may be sent.
        changed: the names whose resources may differ from those of the set that this one follows.
    """

    def __init__(
        self,
        resource_type: ResourceType,
        members: Mapping[str, object],
        encode: Callable[[object], Resource | None],
        changed: Set[str] = frozenset(),
    ) -> None:
        self.resource_type = resource_type
        self.changed = changed
        self._members = members
        self._encode = encode
        self._shared: dict[object, object] = {}
        self._differences: dict[int, Difference] = {}  # by the identity of what was told

    def get(self, name: str) -> Resource | None:
        """The resource of this name, None if there is none."""
        member = self._members.get(name)
        return None if member is None else self._encode(member)

    def version(self, name: str) -> str:
        """The resource's version, or `ABSENT`."""
        resource = self.get(name)
        return ABSENT if resource is None else resource.version

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """The version of each resource by name."""
        made = ((name, self._encode(member)) for name, member in self._members.items())
        return {name: resource.version for name, resource in made if resource is not None}

    @cached_property
    def everything(self) -> tuple[Resource, ...]:
        """All of them, in the order of `versions`."""
        made = map(self._encode, self._members.values())
        return tuple(resource for resource in made if resource is not None)

    def difference(self, told: Mapping[str, str]) -> Difference:
        """How this set differs from what a client was told; made once for all that were told by the same object."""
        known = self._differences.get(id(told))
        if known is not None and known.told is told:
            return known
        if len(self._differences) >= _MOST_DIFFERENCES:
            self._differences.clear()
        made = self._differences[id(told)] = Difference.between(told, self.versions)
        return made

    @cached_property
    def version_of_all(self) -> str:
        """One version for all of them."""
        return version_of_all(self.versions.values())

    def part(self, wanted: Callable[[str, object], bool], previous: ResourceSet | None = None) -> ResourceSet:
        """A set of those whose names and members are wanted; `previous` is the same part of the set before."""
        members = {name: member for name, member in self._members.items() if wanted(name, member)}
        if previous is None:
            return ResourceSet(self.resource_type, members, self._encode, self.changed)
        changed = {name for name in self.changed if name in members or name in previous._members}
        changed |= members.keys() ^ previous._members.keys()  # what is the same may have come into sight, or gone
        part = ResourceSet(self.resource_type, members, self._encode, changed)
        part.carry_over(previous)
        return part

    def carry_over(self, previous: ResourceSet) -> None:
        """Shares the table of versions with the set that this one follows, if no resource has changed."""
        if not self.changed and "versions" in previous.__dict__:
            self.__dict__["versions"] = previous.versions
            self.__dict__["version_of_all"] = previous.version_of_all

    def sotw_message(
        self, version: str, resources: Collection[Resource], missing: Collection[str], *, timed: bool
    ) -> SharedMessage:
        """A DiscoveryResponse, from the store if another stream was owed the same."""
        everything = "everything" in self.__dict__ and resources is self.everything and not missing
        key: object = timed if everything else (version, tuple(resources), tuple(missing), timed)
        return self.shared(
            key, lambda: SharedMessage(sotw_body(self.resource_type, version, resources, missing, timed=timed))
        )

    def delta_message(
        self, version: str, resources: Collection[Resource], removed: Collection[str], *, timed: bool
    ) -> SharedMessage:
        """A DeltaDiscoveryResponse, from the store if another stream was owed the same."""
        key = (tuple(resources), tuple(removed), timed)
        return self.shared(
            key, lambda: SharedMessage(delta_body(self.resource_type, version, resources, removed, timed=timed))
        )

    def shared(self, key: object, make: Callable[[], Made]) -> Made:
        """What is made for one stream, from the store if it was made for another; `key` is all that it depends on."""
        made = self._shared.get(key)
        if made is None:
            if len(self._shared) >= _MOST_SHARED:
                self._shared.clear()
            made = self._shared[key] = make()
        return cast("Made", made)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a client was told, and how what is now differs from it.

    Fields:
        same: nothing differs.
        changed: names of resources that it was not told of, or of another version of.
        new: those of them that it was not told of.
    """

    told: Mapping[str, str]
    same: bool
    changed: frozenset[str]
    new: frozenset[str]

    @classmethod
    def between(cls, told: Mapping[str, str], now: Mapping[str, str]) -> Difference:
        changed = frozenset(name for name, version in now.items() if told.get(name) != version)
        new = frozenset(name for name in changed if not told.get(name))
        return cls(told, not changed and len(told) == len(now), changed, new)


def version_of_all(versions: Iterable[str]) -> str:
    """One version for resources together: the sum of their hashes, whatever their order, so a change is an addition."""
    return version_of_sum(sum(int(version, 16) for version in versions if version))


def version_of_sum(hashes: int) -> str:
    """The same of the sum itself."""
    return f"{hashes & _UINT64_MAX:016x}"
