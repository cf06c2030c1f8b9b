"""Requests as they come off the wire, read into plain values. What cannot be read is the client's mistake.

Clients that were sent one message answer it with the same bytes, so what was read a moment ago is often read again.
"""

from __future__ import annotations

from functools import lru_cache

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from lbcore.xds.delta import DeltaRequest
from lbcore.xds.node import UNNAMED, Node
from lbcore.xds.session import ProtocolError
from lbcore.xds.sotw import SotwRequest

__all__ = ["read_delta", "read_sotw"]

_SHORT = 1024  # bytes; what is longer names a node or many resources, and hardly comes twice
_KEPT = 64


def read_sotw(message: bytes) -> SotwRequest:
    """A serialised DiscoveryRequest. Raises `ProtocolError`."""
    return _short_sotw(message) if len(message) <= _SHORT else _sotw(message)


def read_delta(message: bytes) -> DeltaRequest:
    """A serialised DeltaDiscoveryRequest. Raises `ProtocolError`."""
    return _short_delta(message) if len(message) <= _SHORT else _delta(message)


def _sotw(message: bytes) -> SotwRequest:
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


def _delta(message: bytes) -> DeltaRequest:
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


_short_sotw = lru_cache(_KEPT)(_sotw)
_short_delta = lru_cache(_KEPT)(_delta)
