"""Routes: all calls of a gRPC client to its service, and the routes of an Envoy listener in the order given.

Sources: Envoy route_components.proto; gRPC xds_route_config_parser.cc, gRFC A28.
"""

from __future__ import annotations

from envoy.config.route.v3 import route_components_pb2, route_pb2

from lbcore.routing import HashOn, Listener, Route
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.wire import Resource

__all__ = ["listener_routes", "service_route"]

_HashPolicy = route_components_pb2.RouteAction.HashPolicy


def service_route(service: str) -> Resource:
    """The route configuration of this name for gRPC clients."""
    return _configuration(service, [Route(prefix="/", service=service)])


def listener_routes(listener: Listener) -> Resource:
    """The route configuration for an Envoy listener; it bears the listener's name."""
    return _configuration(listener.name, listener.routes)


def _configuration(name: str, routes: list[Route] | tuple[Route, ...]) -> Resource:
    host = route_components_pb2.VirtualHost(name=name, domains=["*"], routes=map(_route, routes))
    message = route_pb2.RouteConfiguration(name=name, virtual_hosts=[host])
    return Resource(ResourceType.ROUTE, name, message, clusters=frozenset(route.service for route in routes))


def _route(route: Route) -> route_components_pb2.Route:
    return route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix=route.prefix),
        route=route_components_pb2.RouteAction(
            cluster=route.service, hash_policy=[_hash_policy(route.hash_on)] if route.hash_on else []
        ),
    )


def _hash_policy(hash_on: HashOn) -> route_components_pb2.RouteAction.HashPolicy:
    if hash_on.header:
        return _HashPolicy(header=_HashPolicy.Header(header_name=hash_on.header))
    if hash_on.cookie:
        return _HashPolicy(cookie=_HashPolicy.Cookie(name=hash_on.cookie))
    if hash_on.query_parameter:
        return _HashPolicy(query_parameter=_HashPolicy.QueryParameter(name=hash_on.query_parameter))
    return _HashPolicy(connection_properties=_HashPolicy.ConnectionProperties(source_ip=True))
