"""Resources without a Directory, for tests of the state machines: each has a number for its content."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

from envoy.config.endpoint.v3 import endpoint_pb2
from google.protobuf import wrappers_pb2

from lbcore.xds.resource_set import ResourceSet
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.wire import Resource


def resource(resource_type: ResourceType, name: str, content: int, *clusters: str) -> Resource:
    """A resource that `content_of` reads the number back from."""
    policy = endpoint_pb2.ClusterLoadAssignment.Policy(overprovisioning_factor=wrappers_pb2.UInt32Value(value=content))
    message = endpoint_pb2.ClusterLoadAssignment(cluster_name=name, policy=policy)
    return Resource(resource_type, name, message, frozenset(clusters))


def named(any_message: object) -> tuple[str, int]:
    """Name and content of a resource in a response."""
    message = endpoint_pb2.ClusterLoadAssignment.FromString(any_message.value)  # type: ignore[attr-defined]
    return message.cluster_name, message.policy.overprovisioning_factor.value


class _Member:
    def __init__(self, resource: Resource) -> None:
        self.resource = resource


class World:
    """Contents by name, and the resource set that follows from them."""

    def __init__(self, resource_type: ResourceType, contents: Mapping[str, int]) -> None:
        self.resource_type = resource_type
        self.contents: dict[str, int] = {}
        self._members: dict[str, _Member] = {}
        self.resources = ResourceSet(resource_type, {}, attrgetter("resource"))
        self.become(contents)

    def become(self, contents: Mapping[str, int]) -> ResourceSet:
        """The contents are now these."""
        touched = {name for name in {*contents, *self.contents} if contents.get(name) != self.contents.get(name)}
        members = {name: self._members[name] for name in contents if name not in touched}
        for name in touched & contents.keys():
            members[name] = _Member(resource(self.resource_type, name, contents[name]))
        resources = ResourceSet(self.resource_type, members, attrgetter("resource"), frozenset(touched))
        resources.carry_over(self.resources)
        self.contents, self._members, self.resources = dict(contents), members, resources
        return resources

    def change(self, **contents: int) -> ResourceSet:
        """These contents are new or different."""
        return self.become({**self.contents, **contents})

    def remove(self, *names: str) -> ResourceSet:
        """These are gone."""
        return self.become({name: content for name, content in self.contents.items() if name not in names})
