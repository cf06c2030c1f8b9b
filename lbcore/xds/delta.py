"""Delta (incremental) xDS: requests carry changes of a subscription, responses carry changes of resources.

The server knows what the client has, also after a reconnect, so only what differs is sent, each resource with its own
version; what is gone is named. Requests and responses are not in step: a change of the subscription counts whatever
nonce it comes with. Source: Envoy xds_protocol.rst ("Incremental xDS").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from lbcore.xds.nonces import Nonces, SharedMessage
from lbcore.xds.resource_set import ABSENT, ResourceSet, version_of_all
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.status import ConfigStatus, ResourceStatus
from lbcore.xds.subscription import (
    MAX_RESPONSE_SIZE,
    WILDCARD,
    Request,
    Response,
    Subscription,
    Verdict,
    hold_nothing,
)
from lbcore.xds.wire import Resource, delta_heartbeat

__all__ = ["DeltaRequest", "DeltaSubscription"]


class DeltaRequest(Request, frozen=True, kw_only=True, gc=False):
    """A DeltaDiscoveryRequest.

    Fields:
        subscribe, unsubscribe: names to add to and to take from the subscription, in this order.
        initial_versions: what the client has already, by name; counts in the first request for a type on a stream.
    """

    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def by_wildcard(self) -> bool:
        return not self.subscribe or WILDCARD in self.subscribe


class _Sent(msgspec.Struct, frozen=True, gc=False):
    """A response that waits for its answer: the names of its resources, and one version for all of them."""

    names: frozenset[str]
    version: str


class _Part(msgspec.Struct, frozen=True, gc=False):
    """As much of what is due as a response may hold, and all of the response.

    Fields:
        removed: names of what is gone.
        complete: whether all that is due did fit.
    """

    resources: Sequence[Resource]
    removed: Sequence[str]
    complete: bool
    sent: _Sent
    shared: SharedMessage


class DeltaSubscription(Subscription[DeltaRequest]):
    """The subscription of one stream to one type."""

    __slots__ = ("_at_once", "_due", "_names", "_owed", "_started", "_unaccepted", "_unanswered", "_wildcard")

    def __init__(self, resource_type: ResourceType, nonces: Nonces) -> None:
        super().__init__(resource_type, nonces)
        self._started = False
        self._wildcard = False
        self._names: set[str] = set()  # subscribed to by name
        self._told: dict[str, str] = {}  # what the client has; `ABSENT` where it was told so
        self._due: set[str] = set()
        self._owed = False  # a response is due even if it holds nothing
        self._unanswered: dict[str, _Sent] = {}  # by nonce, oldest first
        self._unaccepted: set[str] = set()  # names that the client never had and has not accepted yet
        self._at_once = False  # what is due answers a request, or continues a response that was too large

    def receive(self, request: DeltaRequest) -> Verdict | None:
        verdict = self._answer(request)
        if self._started:
            self._subscribe(request.subscribe)
        else:
            self._start(request)
        self._unsubscribe(request.unsubscribe)
        if self._owed or (self._due and (request.subscribe or request.unsubscribe)):
            self._at_once = True
        return verdict

    def advance(self, resources: ResourceSet) -> None:
        first, self._resources = self._resources is None, resources
        if first:
            self._review([*self._names, *self._told, *(resources.versions if self._wildcard else ())])
        else:
            self._review(resources.changed if self._wildcard else resources.changed & self._names)

    def resend(self, names: Iterable[str]) -> None:
        for name in names:
            if self.covers(name) and self._resources is not None and self._resources.get(name) is not None:
                self._told.pop(name, None)
                self._due.add(name)

    def respond(self, hold: Callable[[Resource], bool] = hold_nothing) -> Response | None:
        resources = self._resources
        if resources is None or not (self._due or self._owed) or (self._unanswered and not self._at_once):
            return None
        if self._retained or hold is not hold_nothing:
            part = self._compose(resources, hold)
        else:  # the same for all streams that are due the same
            key = (frozenset(self._due), self.timed)
            part = resources.shared(key, lambda: self._compose(resources, hold))
        if not (part.resources or part.removed or self._owed):
            return None
        names = part.sent.names
        self._due -= names
        self._due.difference_update(part.removed)
        self._at_once, self._owed = not part.complete, False
        for resource in part.resources:
            if not self._told.get(resource.name):
                self._unaccepted.add(resource.name)
            self._told[resource.name] = resource.version
        for name in part.removed:
            self._tell_gone(name)
        self._refused -= names
        nonce, message = self._nonces.give(part.shared)
        self._unanswered[nonce] = part.sent
        return Response(message, nonce, part.resources, names)

    def prolong(self) -> Response | None:
        if self._unanswered or not (mortal := self._mortal()):
            return None
        nonce, message = self._nonces.give(SharedMessage(delta_heartbeat(self.resource_type, mortal)))
        self._unanswered[nonce] = _Sent(frozenset(), version_of_all(resource.version for resource in mortal))
        return Response(message, nonce, mortal, frozenset())

    def covers(self, name: str) -> bool:
        return self._wildcard or name in self._names

    def settled(self, name: str) -> bool:
        return bool(self._told.get(name)) and name not in self._unaccepted

    def may_use(self, name: str) -> bool:
        return bool(self._told.get(name) or self._unanswered)

    def statuses(self) -> Iterator[ResourceStatus]:
        in_flight = frozenset().union(*(sent.names for sent in self._unanswered.values()))
        for name in self._told.keys() | self._names:
            version = self._told.get(name, ABSENT)
            if version == ABSENT:
                status = ConfigStatus.NOT_SENT
            elif name in self._refused:
                status = ConfigStatus.ERROR
            else:
                status = ConfigStatus.STALE if name in in_flight else ConfigStatus.SYNCED
            yield ResourceStatus(name, version, status)

    def _answer(self, request: DeltaRequest) -> Verdict | None:
        if request.nonce not in self._unanswered:
            return None
        answered = self._unanswered[request.nonce]
        for nonce in list(self._unanswered):  # an answer to one response answers those before it
            names = self._unanswered.pop(nonce).names
            if request.error is None:
                self._unaccepted -= names
                self._refused -= names
            elif nonce == request.nonce:
                self._refused |= names
            if nonce == request.nonce:
                break
        return Verdict(answered.version, request.nonce, request.error)

    def _start(self, request: DeltaRequest) -> None:
        self._started = True
        self._names = set(request.subscribe) - {WILDCARD}
        self._wildcard = self.resource_type.whole and request.by_wildcard
        self._told = {name: version for name, version in request.initial_versions.items() if self.covers(name)}
        self._owed = self._wildcard and not self._told  # a client that starts waits for an answer, be it empty
        self._due = self._names - self._told.keys()
        if self._resources is not None:
            self._review([*self._told, *self._names, *(self._resources.versions if self._wildcard else ())])

    def _subscribe(self, names: Iterable[str]) -> None:
        for name in names:
            if name != WILDCARD:
                self._names.add(name)
                self._told.pop(name, None)  # a client that asks again is answered again
                self._due.add(name)
            elif self.resource_type.whole:
                self._wildcard = self._owed = True
                # What is on its way to the client may have been forgotten here, and gone since.
                self._due.update(*(sent.names for sent in self._unanswered.values()))
                if self._resources is not None:
                    self._due.update(self._resources.versions)

    def _unsubscribe(self, names: Iterable[str]) -> None:
        for name in names:
            if name == WILDCARD:
                self._wildcard = self._owed = False
                for other in [other for other in self._told.keys() | self._due if other not in self._names]:
                    self._forget(other)
            elif name in self._names:
                self._names.discard(name)
                self._forget(name)
                if self._wildcard:
                    self._due.add(name)  # the client is told whether it keeps the resource

    def _review(self, names: Iterable[str]) -> None:
        """Decides of each name whether it is due. What the client asked for and never heard of stays due."""
        for name in names:
            version, told = found.version if (found := self._find(name)) else ABSENT, self._told.get(name)
            if version == told:
                self._due.discard(name)
            elif version != ABSENT or told:
                self._due.add(name)

    def _reconsider(self, names: Iterable[str]) -> None:
        self._review(filter(self.covers, names))

    def _compose(self, resources: ResourceSet, hold: Callable[[Resource], bool]) -> _Part:
        part: list[Resource] = []
        removed: list[str] = []
        complete = True
        size = 0
        for name in sorted(self._due):
            resource = self._find(name)
            if resource is None:
                removed.append(name)
                continue
            if hold(resource):
                continue
            size += len(resource.delta_header) + len(resource.framed)
            if part and size > MAX_RESPONSE_SIZE:
                complete = False
                break
            part.append(resource)
        names = frozenset(resource.name for resource in part)
        version = version_of_all(resource.version for resource in part)
        shared = resources.delta_message(version, part, removed, timed=self.timed)
        return _Part(part, removed, complete, _Sent(names, version), shared)

    def _tell_gone(self, name: str) -> None:
        if name in self._names:
            self._told[name] = ABSENT
        else:
            self._told.pop(name, None)

    def _forget(self, name: str) -> None:
        self._told.pop(name, None)
        self._due.discard(name)
