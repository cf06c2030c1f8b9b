"""One stream: a subscription for each type, and the order in which their responses go out.

A change reaches a client as CDS, EDS, LDS, RDS, so that what is referred to comes before what refers, and clusters are
made before routes move and broken after (`ordering`). A cluster that changes warms up in Envoy until it gets its
endpoints again, so they are sent again. Like the subscriptions, a session knows neither network nor clock.
Source: Envoy xds_protocol.rst ("Resource warming", "Eventual consistency considerations").
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic

from lbcore.access import Permit
from lbcore.errors import NotPermitted
from lbcore.xds.client_kind import ClientKind
from lbcore.xds.heartbeats import Heartbeats, knows_ttl
from lbcore.xds.node import UNNAMED
from lbcore.xds.nonces import Nonces
from lbcore.xds.observer import XdsObserver
from lbcore.xds.ordering import MakeBeforeBreak
from lbcore.xds.resource_set import ResourceSet
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.resources import Catalog
from lbcore.xds.status import Refusal, TypeStatus
from lbcore.xds.subscription import Request, RequestT, Response, Subscription, Verdict, hold_nothing
from lbcore.xds.wire import Resource

__all__ = ["ProtocolError", "Session"]

_MAX_MESSAGE = 4000  # characters of a NACK's reason that are kept
CLUSTER, ASSIGNMENT, LISTENER, ROUTE = _ORDER = tuple(ResourceType)


class ProtocolError(Exception):
    """A request that no answer can follow; the stream ends with INVALID_ARGUMENT and this message."""


class Session(Generic[RequestT]):
    """The state of one stream. `node` is who the client says that it is, `types` how far it is.

    Arguments:
        subscribe: makes the subscription for a type, given the nonces to use.
        catalog: the resources as they are, None if nothing is known yet.
        only: the one type of a per-type service; None on an aggregated stream.
        clock: seconds, from any origin.
        permit: what the client may see, and be; None is everything.
    """

    __slots__ = (
        "_catalog",
        "_heartbeats",
        "_in_order",
        "_kinds",
        "_nonces",
        "_observer",
        "_only",
        "_order",
        "_subscribe",
        "_subscriptions",
        "_timed",
        "node",
        "permit",
        "types",
    )

    def __init__(
        self,
        subscribe: Callable[[ResourceType, Nonces], Subscription[RequestT]],
        catalog: Catalog | None,
        only: ResourceType | None,
        observer: XdsObserver,
        clock: Callable[[], float] = time.monotonic,
        permit: Permit | None = None,
    ) -> None:
        self._subscribe = subscribe
        self._catalog = catalog
        self._only = only
        self._observer = observer
        self.permit = permit
        self.node = UNNAMED
        self.types: dict[ResourceType, TypeStatus] = {}
        self._subscriptions: dict[ResourceType, Subscription[RequestT]] = {}
        self._in_order: list[tuple[ResourceType, Subscription[RequestT]]] = []  # the same, as a change goes out
        self._kinds: dict[ResourceType, ClientKind] = {}
        self._order = MakeBeforeBreak(self._subscriptions, clock)
        self._heartbeats = Heartbeats(clock)
        self._timed = False  # whether anything may ever be prolonged
        self._nonces = Nonces()

    def receive(self, request: RequestT) -> None:
        """Takes a request in. A type that is not served here is passed over: the others keep flowing.

        Raises `ProtocolError`, and `NotPermitted` for a node that the client may not be.
        """
        resource_type = self._type_of(request)
        if self.node is UNNAMED:
            self.node = request.node  # the first one holds for the whole stream
            if self.permit is not None and not self.permit.takes_node(self.node.id):
                raise NotPermitted(f"node.id {self.node.id!r} is not granted to this certificate")
        if resource_type is None:
            return
        subscription = self._subscriptions.get(resource_type) or self._open(resource_type, request)
        verdict = subscription.receive(request)
        if verdict is not None:
            self._note(resource_type, verdict)

    def advance(self, catalog: Catalog) -> None:
        """The resources are now these. Every catalog has to be given, each one following the one before."""
        before, self._catalog = self._catalog, catalog
        if before is not None and CLUSTER in self._subscriptions:
            self._release_clusters()
            self._retain_clusters_in_use(before)
        for resource_type, subscription in self._in_order:
            subscription.advance(self._resources(catalog, resource_type))
        if before is not None and CLUSTER not in self._subscriptions:
            self._warm_clusters_from_elsewhere(before, catalog)

    def next_response(self) -> bytes | None:
        """The next response to send, None if nothing is due. It counts as sent."""
        for resource_type, subscription in self._in_order:
            response = subscription.respond(self._hold_route if resource_type is ROUTE else hold_nothing)
            if response is not None:
                return self._send(resource_type, response)
        return self._next_heartbeat() if self._timed else None

    def _next_heartbeat(self) -> bytes | None:
        for resource_type in self._heartbeats.due():
            subscription = self._subscriptions[resource_type]
            if (beat := subscription.prolong()) is not None:
                self._heartbeats.sent(resource_type, subscription.shortest_ttl)
                return self._message(resource_type, beat)
            if subscription.shortest_ttl is None:
                self._heartbeats.sent(resource_type, None)
        return None

    @property
    def wakes_at(self) -> float | None:
        """When `wake` is to be called, by the clock; None if there is nothing to wait for."""
        held, beat = self._order.next_deadline, self._heartbeats.next_time if self._timed else None
        return beat if held is None else held if beat is None else min(held, beat)

    def wake(self) -> None:
        """Time has passed: lets go of what has been held for too long."""
        if self._catalog is not None:
            self._release_clusters()

    def _type_of(self, request: Request) -> ResourceType | None:
        if self._only is None:
            if not request.type_url:
                raise ProtocolError("type_url: an aggregated stream needs it in every request")
            return ResourceType.of(request.type_url)
        if request.type_url not in ("", self._only.type_url):
            raise ProtocolError(f"type_url {request.type_url!r}: this service has only {self._only.type_url!r}")
        return self._only

    def _open(self, resource_type: ResourceType, request: RequestT) -> Subscription[RequestT]:
        self._kinds[resource_type] = ClientKind.of(self.node.user_agent_name, resource_type, request.by_wildcard)
        subscription = self._subscribe(resource_type, self._nonces)
        # Envoy 1.40 ends with a segmentation fault when an assignment's TTL passes in state of the world.
        fatal = subscription.wraps_ttl and resource_type is ASSIGNMENT and self._kinds[ASSIGNMENT] is ClientKind.ENVOY
        subscription.timed = knows_ttl(self.node, wrapped=subscription.wraps_ttl) and not fatal
        self._timed = self._timed or subscription.timed
        if self._catalog is not None:
            subscription.advance(self._resources(self._catalog, resource_type))
        self._subscriptions[resource_type] = subscription
        self._in_order = [(each, self._subscriptions[each]) for each in _ORDER if each in self._subscriptions]
        self.types[resource_type] = TypeStatus(subscription)
        return subscription

    def _note(self, resource_type: ResourceType, verdict: Verdict) -> None:
        type_url, status = resource_type.type_url, self.types[resource_type]
        if verdict.error is not None:
            status.refusal = Refusal(verdict.version, verdict.nonce, verdict.error[:_MAX_MESSAGE], time.time())
            self._observer.nacked(self.node.id, type_url, verdict.version, verdict.error, verdict.nonce)
            return
        if not self._subscriptions[resource_type].has_refused:
            status.refusal = None
        self._observer.acked(self.node.id, type_url, verdict.version)
        if resource_type is ROUTE:
            self._order.routes_accepted()
        if resource_type in (ROUTE, LISTENER):
            self._release_clusters()

    def _send(self, resource_type: ResourceType, response: Response) -> bytes:
        if resource_type is CLUSTER and (assignments := self._subscriptions.get(ASSIGNMENT)):
            assignments.resend(response.changed)
        if resource_type is ROUTE:
            self._order.routes_sent(response.resources)
        if self._subscriptions[resource_type].timed:
            ttls = [resource.ttl for resource in response.resources if resource.ttl]
            if ttls:
                self._heartbeats.heard(resource_type, min(ttls))
        return self._message(resource_type, response)

    def _message(self, resource_type: ResourceType, response: Response) -> bytes:
        message = response.message
        self.types[resource_type].sent_at = time.time()
        self._observer.response_sent(self.node.id, resource_type.type_url, len(response.resources), len(message))
        return message

    def _hold_route(self, route: Resource) -> bool:
        assert self._catalog is not None
        return CLUSTER in self._kinds and self._order.hold_route(route, self._resources(self._catalog, CLUSTER))

    def _cluster_in_use(self, name: str) -> bool:
        assert self._catalog is not None
        return ROUTE in self._kinds and self._order.keep_cluster(name, self._resources(self._catalog, ROUTE))

    def _release_clusters(self) -> None:
        for resource_type in (CLUSTER, ASSIGNMENT):
            if subscription := self._subscriptions.get(resource_type):
                subscription.release(self._cluster_in_use)

    def _retain_clusters_in_use(self, before: Catalog) -> None:
        """Of clusters that are gone, those stay that the client still needs, with their endpoints."""
        assert self._catalog is not None
        clusters = self._resources(self._catalog, CLUSTER)
        gone = [name for name in clusters.changed if clusters.get(name) is None and self._cluster_in_use(name)]
        for resource_type in (CLUSTER, ASSIGNMENT) if gone else ():
            if subscription := self._subscriptions.get(resource_type):
                old = self._resources(before, resource_type)
                for name in filter(subscription.covers, gone):
                    if resource := old.get(name):
                        subscription.retain(resource)

    def _warm_clusters_from_elsewhere(self, before: Catalog, now: Catalog) -> None:
        """The client has its clusters by another stream: they change when ours do, and then warm up all the same."""
        assignments = self._subscriptions.get(ASSIGNMENT)
        if assignments is None:
            return
        grpc = self._kinds[ASSIGNMENT] is ClientKind.GRPC
        kind = ClientKind.GRPC if grpc else ClientKind.ENVOY
        new = now.resources(CLUSTER, kind, permit=self.permit)
        if not new.changed:  # as nearly always, when endpoints change
            return
        old = before.resources(CLUSTER, kind, permit=self.permit)
        covered = filter(assignments.covers, new.changed)
        assignments.resend(name for name in covered if old.version(name) != new.version(name))

    def _resources(self, catalog: Catalog, resource_type: ResourceType) -> ResourceSet:
        return catalog.resources(resource_type, self._kinds[resource_type], self.node.locality, self.permit)
