"""A client's side of one resource type on an xDS stream: what it asks for, has accepted, refuses; both variants.

A subscription outlives streams: on the next one it says which versions it has, so that nothing unchanged comes again.
Source: Envoy xds_protocol.rst ("ACK/NACK and resource type instance version", "Incremental xDS").
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError, Message

from lbcore.errors import InvalidSetting

__all__ = ["DeltaSubscription", "SotwSubscription", "Subscription", "Update"]

_INVALID_ARGUMENT = 3  # google.rpc.Code
_NOT_FOUND = 5


@dataclass(frozen=True, slots=True)
class Update:
    """What a response says, whichever variant it is of.

    Fields:
        resources: by name.
        removed: names of what is gone for certain.
        whole: whether what is not among the resources is gone as well.
        errors: why the server cannot say something of a name now.
    """

    resources: Mapping[str, Any]
    removed: frozenset[str] = frozenset()
    whole: bool = False
    errors: Mapping[str, str] = field(default_factory=dict)

    def lacks(self, name: str) -> bool:
        """Whether it says that there is no such resource."""
        return name not in self.resources and (self.whole or name in self.removed)


class Subscription(ABC):
    """One type: `names` is what is subscribed to; none is the wildcard for clusters, and nothing for endpoints."""

    def __init__(self, message: type[Message], names: tuple[str, ...] = ()) -> None:
        self.type_url = f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
        self.names = names
        self._message = message

    def _unpacked(self, packed: Any) -> Any:
        """The resource in an `Any`. Raises `InvalidSetting`."""
        if packed.type_url != self.type_url:
            raise InvalidSetting(f"a resource of type {packed.type_url!r:.200}: expected {self.type_url}")
        try:
            return self._message.FromString(packed.value)
        except DecodeError as wrong:
            raise InvalidSetting(f"a resource that is no {self._message.DESCRIPTOR.name}: {wrong}") from None

    @abstractmethod
    def begin(self) -> Any:
        """The first request on a stream."""

    @abstractmethod
    def subscribe(self, *names: str) -> Any:
        """The request that changes the names."""

    @abstractmethod
    def read(self, response: Any) -> Update:
        """What a response says. Raises `InvalidSetting` where it contradicts itself; it is to be refused then."""

    @abstractmethod
    def accept(self, response: Any) -> Any:
        """The request that acknowledges a response."""

    @abstractmethod
    def refuse(self, response: Any, reason: str) -> Any:
        """The request that says why a response is not used."""


class SotwSubscription(Subscription):
    """The state of the world: a response of clusters lists them all, one of endpoints any of them."""

    _version = ""  # accepted last
    _nonce = ""  # of the newest response on this stream

    def begin(self) -> discovery_pb2.DiscoveryRequest:
        self._nonce = ""
        return self._request()

    def subscribe(self, *names: str) -> discovery_pb2.DiscoveryRequest:
        if not set(names) <= set(self.names):
            # Some servers do not send what is new to this client if it says that it has the version already.
            self._version = ""
        self.names = names
        return self._request()

    def read(self, response: Any) -> Update:
        self._nonce = response.nonce
        resources: dict[str, Any] = {}
        for packed in response.resources:
            resource = self._unpacked(packed)
            # Envoy takes the first of a name as well.
            resources.setdefault(getattr(resource, "cluster_name", "") or resource.name, resource)
        failed = {each.resource_name.name: each.error_detail for each in response.resource_errors}
        return Update(
            resources,
            removed=frozenset(name for name, status in failed.items() if status.code == _NOT_FOUND),
            whole=self._message is cluster_pb2.Cluster,
            errors={name: status.message for name, status in failed.items() if status.code != _NOT_FOUND},
        )

    def accept(self, response: Any) -> discovery_pb2.DiscoveryRequest:
        self._version = response.version_info
        return self._request()

    def refuse(self, response: Any, reason: str) -> discovery_pb2.DiscoveryRequest:  # noqa: ARG002
        request = self._request()
        request.error_detail.code, request.error_detail.message = _INVALID_ARGUMENT, reason
        return request

    def _request(self) -> discovery_pb2.DiscoveryRequest:
        return discovery_pb2.DiscoveryRequest(
            type_url=self.type_url,
            resource_names=self.names,
            version_info=self._version,
            response_nonce=self._nonce,
        )


class DeltaSubscription(Subscription):
    """Incremental: a response holds what has changed, and the names of what is gone."""

    def __init__(self, message: type[Message], names: tuple[str, ...] = ()) -> None:
        super().__init__(message, names)
        self._versions: dict[str, str] = {}  # accepted, by resource

    def begin(self) -> discovery_pb2.DeltaDiscoveryRequest:
        return discovery_pb2.DeltaDiscoveryRequest(
            type_url=self.type_url,
            resource_names_subscribe=self.names,
            initial_resource_versions=self._versions,
        )

    def subscribe(self, *names: str) -> discovery_pb2.DeltaDiscoveryRequest:
        before, self.names = self.names, names
        for name in set(before) - set(names):
            self._versions.pop(name, None)
        return discovery_pb2.DeltaDiscoveryRequest(
            type_url=self.type_url,
            resource_names_subscribe=[name for name in names if name not in before],
            resource_names_unsubscribe=[name for name in before if name not in names],
        )

    def read(self, response: Any) -> Update:
        resources: dict[str, Any] = {}
        for each in response.resources:
            if each.name in resources:
                raise InvalidSetting(f"resource {each.name!r:.200}: expected each name once")
            resources[each.name] = self._unpacked(each.resource)
        failed = {each.resource_name.name: each.error_detail for each in response.resource_errors}
        removed = {*response.removed_resources, *(name for name, why in failed.items() if why.code == _NOT_FOUND)}
        if both := removed & resources.keys():
            raise InvalidSetting(f"resource {min(both)!r:.200}: expected it among those that are there or are gone")
        errors = {name: status.message for name, status in failed.items() if status.code != _NOT_FOUND}
        return Update(resources, frozenset(removed), errors=errors)

    def accept(self, response: Any) -> discovery_pb2.DeltaDiscoveryRequest:
        for each in response.resources:
            self._versions[each.name] = each.version
        for name in response.removed_resources:
            self._versions.pop(name, None)
        return discovery_pb2.DeltaDiscoveryRequest(type_url=self.type_url, response_nonce=response.nonce)

    def refuse(self, response: Any, reason: str) -> discovery_pb2.DeltaDiscoveryRequest:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=self.type_url, response_nonce=response.nonce)
        request.error_detail.code, request.error_detail.message = _INVALID_ARGUMENT, reason
        return request
