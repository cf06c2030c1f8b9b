"""Endpoints of a service as a ClusterLoadAssignment that Envoy and gRPC both accept.

They differ in what they refuse, so this keeps to what neither does: every locality is present with a weight of 1 or
more (gRPC silently drops one without), appears once in a priority, and priorities run from 0 without a gap.
Sources: gRPC xds_endpoint_parser.cc; Envoy endpoint.proto, eds.cc.
"""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import wrappers_pb2

from lbcore.directory import ServiceSnapshot
from lbcore.model import Endpoint, Locality
from lbcore.settings import DropOverload
from lbcore.xds.addresses import address_message, is_unix
from lbcore.xds.messages import fractional_percent, lb_metadata
from lbcore.xds.nearness import NOWHERE, distance
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.wire import Resource

__all__ = ["assignment", "same_assignment"]

_FIELDS = ("name", "endpoints", "locality_weights", "overprovisioning_factor", "drop_overload", "nearest_first", "ttl")


def assignment(service: ServiceSnapshot, *, unix_sockets: bool, near: Locality = NOWHERE) -> Resource:
    """All of the service's endpoints, or those that have an IP: gRPC refuses unix sockets.

    With `near`, a client's locality, the nearest come first within each priority.
    """
    usable = [endpoint for endpoint in service.endpoints if unix_sockets or not is_unix(endpoint.address)]
    message = endpoint_pb2.ClusterLoadAssignment(
        cluster_name=service.name,
        endpoints=_localities(usable, service, near),
        policy=endpoint_pb2.ClusterLoadAssignment.Policy(
            overprovisioning_factor=wrappers_pb2.UInt32Value(value=service.overprovisioning_factor),
            drop_overloads=[_drop_overload(service.drop_overload)] if service.drop_overload else [],
        ),
    )
    return Resource(ResourceType.ASSIGNMENT, service.name, message, ttl=service.ttl)


def same_assignment(one: ServiceSnapshot, other: ServiceSnapshot) -> bool:
    """Whether both services have the same assignment."""
    return all(getattr(one, field) == getattr(other, field) for field in _FIELDS)


def _localities(
    endpoints: list[Endpoint], service: ServiceSnapshot, near: Locality
) -> list[endpoint_components_pb2.LocalityLbEndpoints]:
    by_place: dict[tuple[int, Locality], list[Endpoint]] = {}
    for endpoint in endpoints:
        by_place.setdefault((endpoint.priority, endpoint.locality), []).append(endpoint)
    groups = {((priority, distance(near, place)), place): members for (priority, place), members in by_place.items()}
    rank = {priority: rank for rank, priority in enumerate(sorted({priority for priority, _ in groups}))}
    return [
        endpoint_components_pb2.LocalityLbEndpoints(
            locality=base_pb2.Locality(region=place.region, zone=place.zone, sub_zone=place.sub_zone),
            lb_endpoints=map(_lb_endpoint, members),
            load_balancing_weight=wrappers_pb2.UInt32Value(value=service.locality_weights.get(place, 1)),
            priority=rank[priority],
        )
        for (priority, place), members in sorted(groups.items(), key=lambda group: group[0])
    ]


def _lb_endpoint(endpoint: Endpoint) -> endpoint_components_pb2.LbEndpoint:
    message = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(
            address=address_message(endpoint.address),
            hostname=endpoint.hostname,
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
    return message


def _drop_overload(drop: DropOverload) -> endpoint_pb2.ClusterLoadAssignment.Policy.DropOverload:
    return endpoint_pb2.ClusterLoadAssignment.Policy.DropOverload(
        category=drop.category,
        drop_percentage=fractional_percent(drop.percent),
    )
