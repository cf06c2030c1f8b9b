"""What one stream has subscribed to of one type, and what it must be sent: the part that both protocols share.

A subscription is a plain state machine. Requests and changes of the resources go in, responses come out; it knows
neither network nor clock. It keeps three promises: nothing is sent before the resources are known; while a response
waits for its ACK or NACK, changes gather and only their newest state is sent; what a client refused is not sent again
until it changes. Source: Envoy xds_protocol.rst.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from typing import Generic, TypeVar

import msgspec

from lbcore.xds.node import UNNAMED, Node
from lbcore.xds.nonces import Nonces
from lbcore.xds.resource_set import ResourceSet
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.status import ResourceStatus
from lbcore.xds.wire import Resource

__all__ = ["MAX_RESPONSE_SIZE", "WILDCARD", "Request", "Response", "Subscription", "Verdict", "hold_nothing"]

WILDCARD = "*"
MAX_RESPONSE_SIZE = 3 << 20  # bytes; gRPC clients refuse messages above 4 MiB unless told otherwise


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the requests of both protocols have in common.

    Fields:
        type_url: the resource type's, in full; may be empty where the gRPC method implies it.
        node: who the client is; only its first request says so.
        nonce: of the response that this answers; empty if none.
        error: why the client refused that response; None if it did not.
        by_wildcard: whether it subscribes by wildcard, were it the first request of its type.
    """

    type_url: str = ""
    node: Node = UNNAMED
    nonce: str = ""
    error: str | None = None

    @property
    def by_wildcard(self) -> bool:
        raise NotImplementedError


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """A client's answer to one response: an ACK, or a NACK with its reason."""

    version: str
    nonce: str
    error: str | None = None


class Response(msgspec.Struct, frozen=True, gc=False):
    """One response to send.

    Fields:
        message: what to send.
        nonce: its nonce, unique on the stream.
        resources: what it holds, or prolongs the life of.
        changed: names of those that the client did not have, or had in another version.
    """

    message: bytes
    nonce: str
    resources: Collection[Resource]
    changed: Set[str]


RequestT = TypeVar("RequestT", bound=Request)


def hold_nothing(_: Resource) -> bool:
    """For a response that may hold all that is due."""
    return False


class Subscription(abc.ABC, Generic[RequestT]):
    """The state of one stream for one type.

    `timed` is set where the client knows TTLs; `wraps_ttl` says whether it has to know the wrapper for them too.
    """

    __slots__ = ("_nonces", "_refused", "_resources", "_retained", "_told", "resource_type", "timed")

    wraps_ttl = False

    def __init__(self, resource_type: ResourceType, nonces: Nonces) -> None:
        self.resource_type = resource_type
        self._nonces = nonces
        self._resources: ResourceSet | None = None
        self._told: Mapping[str, str] = {}  # the version of each resource that the client was sent last
        self.timed = False
        self._retained: dict[str, Resource] = {}
        self._refused: set[str] = set()  # names whose newest version the client refused

    @abc.abstractmethod
    def receive(self, request: RequestT) -> Verdict | None:
        """Takes a request in; returns the answer to a response that it carries, if any."""

    @abc.abstractmethod
    def advance(self, resources: ResourceSet) -> None:
        """The resources are now these. They follow the set given before, or are the first."""

    @abc.abstractmethod
    def resend(self, names: Iterable[str]) -> None:
        """Owes the client these resources again, as far as it is subscribed to them, changed or not."""

    @abc.abstractmethod
    def respond(self, hold: Callable[[Resource], bool] = hold_nothing) -> Response | None:
        """The response that is due now, None if there is none. It counts as sent.

        What `hold` is true of stays due.
        """

    @abc.abstractmethod
    def covers(self, name: str) -> bool:
        """Whether the client is subscribed to this name, by name or by wildcard."""

    @abc.abstractmethod
    def settled(self, name: str) -> bool:
        """Whether the client has the resource: it was sent, and some version of it was accepted."""

    @abc.abstractmethod
    def may_use(self, name: str) -> bool:
        """Whether the client may have the resource still: it has not accepted that it is gone."""

    @abc.abstractmethod
    def prolong(self) -> Response | None:
        """A heartbeat for all that the client would forget otherwise; None if there is no such thing, or no time.

        It waits while a response does: a client that answers nothing is left to forget.
        """

    @property
    def shortest_ttl(self) -> float | None:
        """The shortest TTL in seconds of what the client has; None if it has nothing with a TTL."""
        return min((resource.ttl for resource in self._mortal() if resource.ttl is not None), default=None)

    def _mortal(self) -> list[Resource]:
        """What the client has that has a TTL."""
        found = ((self._find(name), version) for name, version in self._told.items() if version) if self.timed else ()
        return [each for each, version in found if each is not None and each.ttl and each.version == version]

    @abc.abstractmethod
    def statuses(self) -> Iterator[ResourceStatus]:
        """Each resource that the client is subscribed to, and what it has of it."""

    @property
    def has_refused(self) -> bool:
        """Whether the client refused something that it was not sent anew since."""
        return bool(self._refused)

    def refused(self, name: str) -> bool:
        """Whether the client refused the newest version of the resource that it was sent."""
        return name in self._refused

    def retain(self, resource: Resource) -> None:
        """Keeps a resource that is about to go for this client, until it is released. To be called before `advance`."""
        self._retained[resource.name] = resource

    def release(self, needed: Callable[[str], bool]) -> None:
        """Lets go of the retained resources whose names are not needed any more."""
        released = [name for name in self._retained if not needed(name)]
        for name in released:
            del self._retained[name]
        if released:
            self._reconsider(released)

    @abc.abstractmethod
    def _reconsider(self, names: Iterable[str]) -> None:
        """These resources may have changed by being released."""

    def _find(self, name: str) -> Resource | None:
        assert self._resources is not None
        return self._resources.get(name) or self._retained.get(name)
