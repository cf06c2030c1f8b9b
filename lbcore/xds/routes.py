"""Routes: all calls of a gRPC client to its service, and the routes of an Envoy listener in the order given.

Sources: Envoy route_components.proto; gRPC xds_route_config_parser.cc, gRFC A28, A31, A33, A44.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from google.protobuf import any_pb2, wrappers_pb2

from lbcore.fault import Fault
from lbcore.request_hash import HashPolicy
from lbcore.retry import RetryPolicy
from lbcore.routing import Listener, Route, RouteAction
from lbcore.snapshot import ServiceSnapshot
from lbcore.xds.hash_policies import hash_policies
from lbcore.xds.lint import linted
from lbcore.xds.messages import FAULT_FILTER, duration, fractional_percent, lb_metadata, packed
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.wire import Resource

__all__ = ["HashOfServices", "listener_routes", "service_route"]

HashOfServices: TypeAlias = Mapping[str, HashPolicy | None]
_NO_SERVICES: HashOfServices = {}

_Action = route_components_pb2.RouteAction
_EVERYTHING = RouteAction()


def service_route(service: ServiceSnapshot) -> Resource:
    """The route configuration of this name for gRPC clients: every call, as the service's `route` and `hash_on` say."""
    action = service.route or _EVERYTHING
    destinations = action.services or {service.name: 1}
    message = _route("/", action, destinations, service.hash_on)
    if action.timeout:
        # gRPC reads no other timeout (gRFC A31); a call's own deadline still ends it earlier.
        message.route.max_stream_duration.max_stream_duration.CopyFrom(duration(action.timeout))
    return _configuration(service.name, [message], destinations)


def listener_routes(listener: Listener, hash_on: HashOfServices = _NO_SERVICES) -> Resource:
    """The route configuration for an Envoy listener; it bears the listener's name. `hash_on` is by service."""
    routes = [_listener_route(route, _hash_on(route, hash_on)) for route in listener.routes]
    return _configuration(listener.name, routes, {name for route in listener.routes for name in route.destinations})


def _configuration(
    name: str, routes: Sequence[route_components_pb2.Route], clusters: Mapping[str, int] | set[str]
) -> Resource:
    host = route_components_pb2.VirtualHost(name=name, domains=["*"], routes=routes)
    message = route_pb2.RouteConfiguration(name=name, virtual_hosts=[host])
    return linted(ResourceType.ROUTE, name, message, clusters=frozenset(clusters))


def _hash_on(route: Route, of_services: HashOfServices) -> HashPolicy | None:
    """A route that says nothing of hashing, not even that there is none (`hash_on: []`), hashes as its service says.

    Of several services it is the first that says something.
    """
    if route.hash_on is not None:
        return route.hash_on
    said = (of_services.get(name) for name in route.destinations)
    return next((each for each in said if each is not None), None)


def _listener_route(route: Route, hash_on: HashPolicy | None) -> route_components_pb2.Route:
    message = _route(route.prefix, route, route.destinations, hash_on)
    if route.subset is not None:
        message.route.metadata_match.CopyFrom(lb_metadata(route.subset))
    return message


def _route(
    prefix: str, action: RouteAction, destinations: Mapping[str, int], hash_on: HashPolicy | None
) -> route_components_pb2.Route:
    message = route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix=prefix),
        route=_Action(
            hash_policy=hash_policies(hash_on),
            timeout=None if action.timeout is None else duration(action.timeout),
            retry_policy=_retry_policy(action.retry) if action.retry else None,
        ),
    )
    if len(destinations) == 1:
        (message.route.cluster,) = destinations
    else:
        message.route.weighted_clusters.CopyFrom(_weighted(destinations))
    if action.fault:
        message.typed_per_filter_config[FAULT_FILTER].CopyFrom(_fault(action.fault))
    return message


def _weighted(destinations: Mapping[str, int]) -> route_components_pb2.WeightedCluster:
    return route_components_pb2.WeightedCluster(
        clusters=[
            route_components_pb2.WeightedCluster.ClusterWeight(name=name, weight=_uint32(weight))
            for name, weight in destinations.items()
        ]
    )


def _retry_policy(setting: RetryPolicy) -> route_components_pb2.RetryPolicy:
    message = route_components_pb2.RetryPolicy(
        retry_on=",".join(setting.retry_on),
        num_retries=_uint32(setting.num_retries),
        per_try_timeout=duration(setting.per_try_timeout) if setting.per_try_timeout else None,
        retriable_status_codes=setting.retriable_status_codes,
    )
    if back_off := setting.retry_back_off:
        message.retry_back_off.base_interval.CopyFrom(duration(back_off.base_interval))
        if back_off.max_interval is not None:
            message.retry_back_off.max_interval.CopyFrom(duration(back_off.max_interval))
    return message


def _fault(setting: Fault) -> any_pb2.Any:
    message = fault_pb2.HTTPFault(
        max_active_faults=None if setting.max_active_faults is None else _uint32(setting.max_active_faults)
    )
    if setting.delay:
        message.delay.fixed_delay.CopyFrom(duration(setting.delay.fixed_delay))
        message.delay.percentage.CopyFrom(fractional_percent(setting.delay.percentage))
    if setting.abort:
        message.abort.percentage.CopyFrom(fractional_percent(setting.abort.percentage))
        if setting.abort.http_status is not None:
            message.abort.http_status = setting.abort.http_status
        else:
            message.abort.grpc_status = setting.abort.grpc_status or 0
    return packed(message)


def _uint32(value: int) -> wrappers_pb2.UInt32Value:
    return wrappers_pb2.UInt32Value(value=value)
