"""Endpoints of a service as a ClusterLoadAssignment that Envoy and gRPC both accept.

They differ in what they refuse, so this keeps to what neither does: every locality is present with a weight of 1 or
more (gRPC silently drops one without), appears once in a priority, and priorities run from 0 without a gap.
Sources: gRPC xds_endpoint_parser.cc; Envoy endpoint.proto, eds.cc.
"""

from __future__ import annotations

from functools import lru_cache, partial

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import wrappers_pb2

from lbcore._core import EncodedEndpoints
from lbcore.directory import ServiceSnapshot
from lbcore.model import Endpoint, Locality
from lbcore.settings import DropOverload
from lbcore.xds.addresses import address_message, is_unix
from lbcore.xds.fields import field_tag, message_field, number_field, text_field
from lbcore.xds.messages import fractional_percent, lb_metadata
from lbcore.xds.nearness import NOWHERE, distance
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.wire import Resource

__all__ = ["Frames", "assignment", "encoded_endpoints", "same_assignment"]

_FIELDS = ("name", "endpoints", "locality_weights", "overprovisioning_factor", "drop_overload", "nearest_first", "ttl")


def encoded_endpoints(
    service: ServiceSnapshot, previous: EncodedEndpoints | None = None, *, unix_sockets: bool
) -> EncodedEndpoints:
    """All of the service's endpoints, or those that have an IP: gRPC refuses unix sockets.

    Of `previous`, what the same service had before, everything unchanged is taken over.
    """
    endpoints = service.endpoints
    if not unix_sockets:
        endpoints = tuple(endpoint for endpoint in endpoints if not is_unix(endpoint.address))
    port = _checked_port(service)
    if port is None:
        return EncodedEndpoints(endpoints, _lb_endpoint, previous)
    return EncodedEndpoints(endpoints, partial(_lb_endpoint, checked_port=port), natively=False)


def assignment(service: ServiceSnapshot, endpoints: EncodedEndpoints, frames: Frames) -> Resource:
    """The service's assignment, put together from what is serialised."""
    bodies = endpoints.bodies
    parts = [frames.name]
    for index, length, opening, tail in frames.groups:
        body = bodies[index]
        parts += (opening if len(body) == length else frames.opening(index, body), body, tail)
    parts.append(_policy(service.overprovisioning_factor, service.drop_overload))
    return Resource(ResourceType.ASSIGNMENT, service.name, parts, ttl=service.ttl)


class Frames:
    """What surrounds the endpoints of each group in an assignment; it changes rarely, and is made once.

    Fields:
        name: the assignment's.
        groups: in order, the index of a group among its endpoints', how long these are at first, what precedes them as
            long as they are, and what follows them.
    """

    def __init__(self, service: ServiceSnapshot, endpoints: EncodedEndpoints, near: Locality) -> None:
        self._made_of = (service.name, endpoints.groups, service.locality_weights, near)
        groups = enumerate(endpoints.groups)
        placed = sorted(
            ((priority, distance(near, place)), place.region, place.zone, place.sub_zone, index)
            for index, (priority, place) in groups
        )
        rank = {priority: rank for rank, priority in enumerate(sorted({priority for priority, *_ in placed}))}
        weights = service.locality_weights
        self.name = text_field(1, service.name)
        self.groups: list[tuple[int, int, bytes, bytes]] = []
        self._heads: dict[int, tuple[bytes, int]] = {}  # what follows a group's tag; how long all around is
        for priority, region, zone, sub_zone, index in placed:
            weight = weights.get(endpoints.groups[index][1], 1) if weights else 1
            head, tail = _locality(region, zone, sub_zone), _tail(weight, rank[priority])
            self._heads[index] = head, len(head) + len(tail)
            body = endpoints.bodies[index]
            self.groups.append((index, len(body), self.opening(index, body), tail))

    def opening(self, index: int, body: bytes) -> bytes:
        """What precedes a group's endpoints, `body`."""
        head, around = self._heads[index]
        return field_tag(2, around + len(body)) + head

    @classmethod
    def of(
        cls,
        service: ServiceSnapshot,
        endpoints: EncodedEndpoints,
        near: Locality = NOWHERE,
        previous: Frames | None = None,
    ) -> Frames:
        """For clients in `near`, who see the nearest groups first; `previous` itself where it fits still."""
        if previous is not None and previous._fit(service, endpoints, near):
            return previous
        return cls(service, endpoints, near)

    def _fit(self, service: ServiceSnapshot, endpoints: EncodedEndpoints, near: Locality) -> bool:
        name, groups, weights, seen_from = self._made_of
        return (
            groups is endpoints.groups
            and name == service.name
            and weights == service.locality_weights
            and seen_from == near
        )


def same_assignment(one: ServiceSnapshot, other: ServiceSnapshot) -> bool:
    """Whether both services have the same assignment."""
    same = all(getattr(one, field) == getattr(other, field) for field in _FIELDS)
    return same and _checked_port(one) == _checked_port(other)


@lru_cache(maxsize=4096)
def _locality(region: str, zone: str, sub_zone: str) -> bytes:
    """LocalityLbEndpoints.locality, present also where it is empty."""
    message = base_pb2.Locality(region=region, zone=zone, sub_zone=sub_zone)
    return message_field(1, message.SerializeToString())


@lru_cache(maxsize=4096)
def _tail(weight: int, priority: int) -> bytes:
    """LocalityLbEndpoints.load_balancing_weight and .priority."""
    return message_field(3, number_field(1, weight)) + number_field(5, priority)


@lru_cache(maxsize=4096)
def _policy(overprovisioning_factor: int, drop_overload: DropOverload | None) -> bytes:
    """ClusterLoadAssignment.policy."""
    message = endpoint_pb2.ClusterLoadAssignment.Policy(
        overprovisioning_factor=wrappers_pb2.UInt32Value(value=overprovisioning_factor),
        drop_overloads=[_drop_overload(drop_overload)] if drop_overload else [],
    )
    return message_field(4, message.SerializeToString(deterministic=True))


def _checked_port(service: ServiceSnapshot) -> int | None:
    """Where clients check its endpoints, if that is not where they serve. Envoy reads it of each endpoint alone."""
    check = service.health_check
    return check.alt_port if check is not None and check.checked_by != "service" else None


def _lb_endpoint(endpoint: Endpoint, checked_port: int | None = None) -> bytes:
    message = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(
            address=address_message(endpoint.address),
            hostname=endpoint.hostname,
            health_check_config=(
                endpoint_components_pb2.Endpoint.HealthCheckConfig(port_value=checked_port) if checked_port else None
            ),
            additional_addresses=[
                endpoint_components_pb2.Endpoint.AdditionalAddress(address=address_message(address))
                for address in endpoint.additional_addresses
            ],
        ),
        health_status=int(endpoint.health),  # the numbers are Envoy's
        load_balancing_weight=wrappers_pb2.UInt32Value(value=endpoint.weight),
    )
    if endpoint.metadata:
        message.metadata.CopyFrom(lb_metadata(endpoint.metadata))
    return bytes(message.SerializeToString(deterministic=True))


def _drop_overload(drop: DropOverload) -> endpoint_pb2.ClusterLoadAssignment.Policy.DropOverload:
    return endpoint_pb2.ClusterLoadAssignment.Policy.DropOverload(
        category=drop.category,
        drop_percentage=fractional_percent(drop.percent),
    )
