"""Requests as they come off the wire, read into plain values. What cannot be read is the client's mistake."""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from lbcore.xds.delta import DeltaRequest
from lbcore.xds.node import UNNAMED, Node
from lbcore.xds.session import ProtocolError
from lbcore.xds.sotw import SotwRequest

__all__ = ["read_delta", "read_sotw"]


def read_sotw(message: bytes) -> SotwRequest:
    """A serialised DiscoveryRequest. Raises `ProtocolError`."""
    try:
        request = discovery_pb2.DiscoveryRequest.FromString(message)
    except DecodeError as error:
        raise ProtocolError(f"not a DiscoveryRequest: {error}") from None
    return SotwRequest(
        type_url=request.type_url,
        node=Node.read(request.node) if request.HasField("node") else UNNAMED,
        nonce=request.response_nonce,
        error=request.error_detail.message if request.HasField("error_detail") else None,
        version=request.version_info,
        names=tuple(request.resource_names),
    )


def read_delta(message: bytes) -> DeltaRequest:
    """A serialised DeltaDiscoveryRequest. Raises `ProtocolError`."""
    try:
        request = discovery_pb2.DeltaDiscoveryRequest.FromString(message)
    except DecodeError as error:
        raise ProtocolError(f"not a DeltaDiscoveryRequest: {error}") from None
    subscribe, unsubscribe = request.resource_names_subscribe, request.resource_names_unsubscribe
    versions = request.initial_resource_versions
    return DeltaRequest(
        type_url=request.type_url,
        node=Node.read(request.node) if request.HasField("node") else UNNAMED,
        nonce=request.response_nonce,
        error=request.error_detail.message if request.HasField("error_detail") else None,
        subscribe=tuple(subscribe) if subscribe else (),  # most requests answer, and have none of these
        unsubscribe=tuple(unsubscribe) if unsubscribe else (),
        initial_versions=dict(versions) if versions else {},
    )
