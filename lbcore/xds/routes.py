"""Routes: all calls of a gRPC client to its service, and the routes of an Envoy listener in the order given.

Sources: Envoy route_components.proto; gRPC xds_route_config_parser.cc, gRFC A28.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from envoy.config.route.v3 import route_components_pb2, route_pb2

from lbcore.request_hash import HashPolicy
from lbcore.routing import Listener, Route
from lbcore.xds.hash_policies import hash_policies
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.wire import Resource

__all__ = ["HashOfServices", "listener_routes", "service_route"]

HashOfServices: TypeAlias = Mapping[str, HashPolicy | None]
_NO_SERVICES: HashOfServices = {}


def service_route(service: str, hash_on: HashPolicy | None = None) -> Resource:
    """The route configuration of this name for gRPC clients; `hash_on` is the service's."""
    return _configuration(service, [Route(prefix="/", service=service)], {service: hash_on})


def listener_routes(listener: Listener, hash_on: HashOfServices = _NO_SERVICES) -> Resource:
    """The route configuration for an Envoy listener; it bears the listener's name. `hash_on` is by service."""
    return _configuration(listener.name, listener.routes, hash_on)


def _configuration(name: str, routes: Sequence[Route], hash_on: HashOfServices) -> Resource:
    messages = [_route(route, hash_on.get(route.service)) for route in routes]
    host = route_components_pb2.VirtualHost(name=name, domains=["*"], routes=messages)
    message = route_pb2.RouteConfiguration(name=name, virtual_hosts=[host])
    return Resource(ResourceType.ROUTE, name, message, clusters=frozenset(route.service for route in routes))


def _route(route: Route, of_service: HashPolicy | None) -> route_components_pb2.Route:
    """A route that says nothing of hashing, not even that there is none (`hash_on: []`), hashes as its service says."""
    hash_on = of_service if route.hash_on is None else route.hash_on
    return route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix=route.prefix),
        route=route_components_pb2.RouteAction(cluster=route.service, hash_policy=hash_policies(hash_on)),
    )
