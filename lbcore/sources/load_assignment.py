"""A ClusterLoadAssignment to a membership: what EDS sends, and what a cluster may hold itself.

What Envoy would refuse is refused; an address that comes twice counts once, as in Envoy. Of the assignment's policy
(drops, overprovisioning) nothing is taken: that belongs to the settings of whoever picks.
Source: Envoy endpoint.proto, endpoint_components.proto, eds.cc.
"""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import address_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf.json_format import MessageToDict, SerializeToJsonError

from lbcore.address import is_hostname
from lbcore.errors import InvalidSetting
from lbcore.membership import Membership, check_membership
from lbcore.model import Endpoint, Health, Locality

__all__ = ["membership_of"]


def membership_of(assignment: endpoint_pb2.ClusterLoadAssignment) -> Membership:
    """Raises `InvalidSetting` that names what is wrong."""
    endpoints: dict[str, Endpoint] = {}
    weights: dict[Locality, int] = {}
    for index, group in enumerate(assignment.endpoints):
        where = f"endpoints[{index}]"
        place = Locality(group.locality.region, group.locality.zone, group.locality.sub_zone)
        if group.WhichOneof("lb_config"):
            raise InvalidSetting(f"{where}: expected its endpoints in lb_endpoints")
        if group.HasField("load_balancing_weight"):
            weights[place] = group.load_balancing_weight.value
            if not weights[place]:
                raise InvalidSetting(f"{where}.load_balancing_weight 0: expected 1 or more")
        for position, shown in enumerate(group.lb_endpoints):
            try:
                endpoint = _endpoint(shown, place, group.priority)
            except InvalidSetting as wrong:
                raise InvalidSetting(f"{where}.lb_endpoints[{position}]: {wrong}") from None
            endpoints.setdefault(endpoint.address, endpoint)
    membership = Membership(tuple(endpoints.values()), weights)
    check_membership(membership)
    return membership


def _endpoint(shown: endpoint_components_pb2.LbEndpoint, place: Locality, priority: int) -> Endpoint:
    if shown.WhichOneof("host_identifier") != "endpoint":
        raise InvalidSetting("expected an endpoint")
    return Endpoint(
        _address(shown.endpoint.address),
        weight=shown.load_balancing_weight.value if shown.HasField("load_balancing_weight") else 1,
        locality=place,
        priority=priority,
        health=Health(shown.health_status) if shown.health_status in tuple(Health) else Health.UNKNOWN,
        hostname=shown.endpoint.hostname,
        metadata=_metadata(shown),
        additional_addresses=tuple(_address(each.address) for each in shown.endpoint.additional_addresses),
    )


def _address(shown: address_pb2.Address) -> str:
    kind = shown.WhichOneof("address")
    if kind == "pipe":
        return f"unix:{shown.pipe.path}"
    if kind != "socket_address" or shown.socket_address.named_port:
        raise InvalidSetting(f"address {kind or 'missing'}: expected a socket_address with a port_value, or a pipe")
    host, port = shown.socket_address.address, shown.socket_address.port_value
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if is_hostname(address):
        raise InvalidSetting(f"address {address!r:.300}: expected an IP address")
    return address


def _metadata(shown: endpoint_components_pb2.LbEndpoint) -> dict[str, Any]:
    if "envoy.lb" not in shown.metadata.filter_metadata:
        return {}
    try:
        return MessageToDict(shown.metadata.filter_metadata["envoy.lb"])
    except (SerializeToJsonError, ValueError) as wrong:  # a number that is not finite
        raise InvalidSetting(f"metadata envoy.lb: {wrong}") from None
