"""One stream: a subscription for each type, and the order in which their responses go out.

A change reaches a client as CDS, EDS, LDS, RDS, so that what is referred to comes before what refers. Two things tie the
types together: a cluster that changes warms up in Envoy until it gets its endpoints again, so they are sent again; and a
route that a client has is not moved to a cluster that it has not accepted yet. Like the subscriptions, a session knows
neither network nor clock. Source: Envoy xds_protocol.rst ("Resource warming", "Eventual consistency considerations").
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from typing import Generic

from lbcore.xds.client_kind import ClientKind
from lbcore.xds.observer import XdsObserver
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.resources import Catalog
from lbcore.xds.subscription import Request, RequestT, Subscription

__all__ = ["ProtocolError", "Session"]


class ProtocolError(Exception):
    """A request that no answer can follow; the stream ends with INVALID_ARGUMENT and this message."""


class Session(Generic[RequestT]):
    """The state of one stream.

    Arguments:
        subscribe: makes the subscription for a type, given the nonces to use.
        catalog: the resources as they are, None if nothing is known yet.
        only: the one type of a per-type service; None on an aggregated stream.
    """

    def __init__(
        self,
        subscribe: Callable[[ResourceType, Iterator[str]], Subscription[RequestT]],
        catalog: Catalog | None,
        only: ResourceType | None,
        observer: XdsObserver,
    ) -> None:
        self._subscribe = subscribe
        self._catalog = catalog
        self._only = only
        self._observer = observer
        self._node = ""
        self._user_agent = ""
        self._subscriptions: dict[ResourceType, Subscription[RequestT]] = {}
        self._kinds: dict[ResourceType, ClientKind] = {}
        # Nonces of another stream never match, so what a client repeats from there is not taken for an answer.
        self._nonces = map(f"{secrets.token_hex(4)}-{{}}".format, itertools.count(1))

    def receive(self, request: RequestT) -> None:
        """Takes a request in. A type that is not served here is passed over: the others keep flowing.

        Raises `ProtocolError`.
        """
        resource_type = self._type_of(request)
        self._node = self._node or request.node_id  # the first one holds for the whole stream
        self._user_agent = self._user_agent or request.user_agent_name
        if resource_type is None:
            return
        subscription = self._subscriptions.get(resource_type) or self._open(resource_type, request)
        verdict = subscription.receive(request)
        if verdict is None:
            return
        if verdict.error is None:
            self._observer.acked(self._node, resource_type.type_url, verdict.version)
        else:
            self._observer.nacked(
                self._node, resource_type.type_url, verdict.version, verdict.error, verdict.nonce
            )

    def advance(self, catalog: Catalog) -> None:
        """The resources are now these. Every catalog has to be given, each one following the one before."""
        before, self._catalog = self._catalog, catalog
        for resource_type, subscription in self._subscriptions.items():
            subscription.advance(catalog.resources(resource_type, self._kinds[resource_type]))
        if before is not None and ResourceType.CLUSTER not in self._subscriptions:
            self._warm_for_clusters_from_elsewhere(before, catalog)

    def next_response(self) -> bytes | None:
        """The next response to send, None if nothing is due. It counts as sent."""
        for resource_type in ResourceType:
            subscription = self._subscriptions.get(resource_type)
            response = subscription and subscription.respond()
            if response is None:
                continue
            if resource_type is ResourceType.CLUSTER and (assignments := self._subscriptions.get(ResourceType.ASSIGNMENT)):
                assignments.resend(response.changed)
            message = response.serialise()
            self._observer.response_sent(self._node, resource_type.type_url, response.resources, len(message))
            return message
        return None

    def _type_of(self, request: Request) -> ResourceType | None:
        if self._only is None and not request.type_url:
            raise ProtocolError("type_url: an aggregated stream needs it in every request")
        if self._only is None:
            return ResourceType.of(request.type_url)
        if request.type_url not in ("", self._only.type_url):
            raise ProtocolError(f"type_url {request.type_url!r}: this service has only {self._only.type_url!r}")
        return self._only

    def _open(self, resource_type: ResourceType, request: RequestT) -> Subscription[RequestT]:
        kind = ClientKind.of(self._user_agent, resource_type, request.by_wildcard)
        subscription = self._subscribe(resource_type, self._nonces)
        if self._catalog is not None:
            subscription.advance(self._catalog.resources(resource_type, kind))
        self._kinds[resource_type] = kind
        self._subscriptions[resource_type] = subscription
        return subscription

    def _warm_for_clusters_from_elsewhere(self, before: Catalog, now: Catalog) -> None:
        """The client has its clusters by another stream: they change when ours change, and then warm up all the same."""
        assignments = self._subscriptions.get(ResourceType.ASSIGNMENT)
        if assignments is None:
            return
        kind = self._kinds[ResourceType.ASSIGNMENT]
        kind = ClientKind.ENVOY if kind is ClientKind.EITHER else kind
        old, new = (catalog.resources(ResourceType.CLUSTER, kind) for catalog in (before, now))
        assignments.resend(name for name in new.changed if assignments.covers(name) and old.version(name) != new.version(name))
