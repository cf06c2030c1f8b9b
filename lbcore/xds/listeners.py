"""Listeners: a service as the ApiListener that `xds:///NAME` asks for, and an address that Envoy listens on.

Both take their routes by RDS, so that a changed route drains no connection. Sources: Envoy listener.proto,
http_connection_manager.proto; gRPC xds_listener_parser.cc, gRFC A27.
"""

from __future__ import annotations

from envoy.config.listener.v3 import api_listener_pb2, listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2

from lbcore.routing import Listener
from lbcore.snapshot import ServiceSnapshot
from lbcore.xds.addresses import address_message
from lbcore.xds.lint import linted
from lbcore.xds.messages import FAULT_FILTER, FROM_ADS, packed
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.wire import Resource

__all__ = ["api_listener", "envoy_listener"]

# What faults there are stands in the routes. gRPC refuses a manager without filters, and wants the router last.
_FAULTS = hcm_pb2.HttpFilter(name=FAULT_FILTER, typed_config=packed(fault_pb2.HTTPFault()))
_ROUTER = hcm_pb2.HttpFilter(name="envoy.filters.http.router", typed_config=packed(router_pb2.Router()))


def api_listener(service: ServiceSnapshot) -> Resource:
    """The listener of the service's name for gRPC clients; with the fault filter where its route needs it."""
    filters = [_FAULTS, _ROUTER] if service.route and service.route.fault else [_ROUTER]
    message = listener_pb2.Listener(
        name=service.name,
        api_listener=api_listener_pb2.ApiListener(api_listener=packed(_connection_manager(service.name, filters))),
    )
    return linted(ResourceType.LISTENER, service.name, message)


def envoy_listener(listener: Listener) -> Resource:
    """The listener with one filter chain that serves HTTP/1 and HTTP/2.

    It always has the fault filter: a listener that changes drains its connections, a route that changes does not.
    """
    manager = listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager",
        typed_config=packed(_connection_manager(listener.name, [_FAULTS, _ROUTER])),
    )
    message = listener_pb2.Listener(
        name=listener.name,
        address=address_message(listener.address),
        filter_chains=[listener_components_pb2.FilterChain(filters=[manager])],
    )
    return linted(ResourceType.LISTENER, listener.name, message)


def _connection_manager(name: str, filters: list[hcm_pb2.HttpFilter]) -> hcm_pb2.HttpConnectionManager:
    return hcm_pb2.HttpConnectionManager(
        stat_prefix=name,
        rds=hcm_pb2.Rds(config_source=FROM_ADS, route_config_name=name),
        http_filters=filters,
    )
