"""State of the world: each request names all that a client wants, each response is answered by an ACK or a NACK.

What a response must hold differs by type. CDS and LDS responses list everything subscribed to, since what is left out
is deleted; EDS and RDS responses hold what is due, since what is left out stays as it is.
Source: Envoy xds_protocol.rst.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set

import msgspec

from lbcore.xds.nonces import Nonces, SharedMessage
from lbcore.xds.resource_set import ABSENT, Difference, ResourceSet, version_of_all, version_of_sum
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
from lbcore.xds.wire import Resource, sotw_body, sotw_heartbeat

__all__ = ["SotwRequest", "sotw_subscription"]


class SotwRequest(Request, frozen=True, kw_only=True, gc=False):
    """A DiscoveryRequest.

    Fields:
        version: the version that the client runs with.
        names: every resource that it wants; empty at first means all, and later none.
    """

    version: str = ""
    names: tuple[str, ...] = ()

    @property
    def by_wildcard(self) -> bool:
        return not self.names or WILDCARD in self.names


def sotw_subscription(resource_type: ResourceType, nonces: Nonces) -> SotwSubscription:
    """A subscription to a type as its responses require it."""
    kind = WholeSubscription if resource_type.whole else PartialSubscription
    return kind(resource_type, nonces)


class _Sent(msgspec.Struct, gc=False):
    """The newest response: its nonce is the only one that is not stale."""

    version: str
    nonce: str
    answered: bool = False
    refused: bool = False


class _Due(msgspec.Struct, frozen=True, gc=False):
    """What goes into a response, and all of it; `changed` and `new` are names, new ones the client did not have."""

    version: str
    resources: Sequence[Resource]
    changed: frozenset[str]
    new: frozenset[str]
    shared: SharedMessage


class _Part(_Due, frozen=True, kw_only=True, gc=False):
    """The same of a type whose responses hold a part; `told` and `sum` are what the client has been told then."""

    told: Mapping[str, str]
    sum: int


class SotwSubscription(Subscription[SotwRequest]):
    """What both kinds share: nonces, and at most one response that waits for its answer."""

    __slots__ = ("_client_has_answered", "_in_flight", "_sent", "_superseded", "_unaccepted")

    wraps_ttl = True

    def __init__(self, resource_type: ResourceType, nonces: Nonces) -> None:
        super().__init__(resource_type, nonces)
        self._sent: _Sent | None = None
        self._client_has_answered = False
        self._superseded = False
        self._unaccepted: set[str] = set()  # names that the client never had and has not accepted yet
        self._in_flight: Set[str] = frozenset()  # names of what its next answer accepts or refuses

    def receive(self, request: SotwRequest) -> Verdict | None:
        verdict = None
        if self._sent is not None:
            if request.nonce == self._sent.nonce:
                verdict = self._answer(self._sent, request)
            elif request.nonce or self._client_has_answered:
                return None  # stale: the client answers the newest response as well, and repeats its names there
            else:
                self._superseded = True  # it crossed our first response, and asks for more than that answered
        self._subscribe(request.names)
        return verdict

    def respond(self, hold: Callable[[Resource], bool] = hold_nothing) -> Response | None:
        waiting = self._sent is not None and not self._sent.answered
        if self._resources is None or (waiting and not self._superseded):
            return None
        due = self._compose(self._resources, hold)
        if due is None:
            return None
        in_flight = due.changed
        if waiting:
            in_flight = in_flight.union(self._in_flight)
        self._unaccepted |= due.new
        self._refused -= due.changed
        if self._unaccepted:
            in_flight = in_flight.union(self._unaccepted.intersection(resource.name for resource in due.resources))
        self._in_flight = in_flight
        nonce, message = self._nonces.give(due.shared)
        self._sent = _Sent(due.version, nonce)
        self._superseded = False
        return Response(message, nonce, due.resources, due.changed)

    def prolong(self) -> Response | None:
        sent = self._sent
        if sent is None or not sent.answered or not (mortal := self._mortal()):
            return None
        nonce, message = self._nonces.give(SharedMessage(self._heartbeat(sent.version, mortal)))
        self._sent = _Sent(sent.version, nonce, refused=sent.refused)
        return Response(message, nonce, mortal, frozenset())

    def settled(self, name: str) -> bool:
        return self._told_version(name) != ABSENT and name not in self._unaccepted

    def may_use(self, name: str) -> bool:
        return self._told_version(name) != ABSENT or (self._sent is not None and not self._sent.answered)

    def statuses(self) -> Iterator[ResourceStatus]:
        for name, version in self._told.items():
            if version == ABSENT:
                status = ConfigStatus.NOT_SENT
            elif name in self._refused:
                status = ConfigStatus.ERROR
            else:
                status = ConfigStatus.STALE if name in self._in_flight else ConfigStatus.SYNCED
            yield ResourceStatus(name, version, status)

    def _answer(self, sent: _Sent, request: SotwRequest) -> Verdict | None:
        first, sent.answered, self._client_has_answered = not sent.answered, True, True
        if request.error is not None:
            sent.refused = True
            self._refused |= self._in_flight
            self._in_flight = frozenset()
            return Verdict(sent.version, sent.nonce, request.error) if first else None
        if request.version != sent.version:
            return None  # neither ACK nor NACK: the names changed while an older version is in use
        self._unaccepted -= self._in_flight
        self._refused -= self._in_flight
        self._in_flight = frozenset()
        return Verdict(sent.version, sent.nonce) if first else None

    @abc.abstractmethod
    def _subscribe(self, names: tuple[str, ...]) -> None:
        """These are now all the names that the client wants."""

    @abc.abstractmethod
    def _compose(self, resources: ResourceSet, hold: Callable[[Resource], bool]) -> _Due | None:
        """What is due; from now on the client has been told."""

    @abc.abstractmethod
    def _heartbeat(self, version: str, mortal: list[Resource]) -> bytes:
        """The body of a response that prolongs the life of these."""

    @abc.abstractmethod
    def _told_version(self, name: str) -> str:
        """The version that the client was last sent, `ABSENT` if none."""


class WholeSubscription(SotwSubscription):
    """CDS and LDS: every response lists all that the client is subscribed to; by name, or all by wildcard."""

    __slots__ = ("_names", "_no_name_yet", "_owed", "_stale", "_wildcard")

    def __init__(self, resource_type: ResourceType, nonces: Nonces) -> None:
        super().__init__(resource_type, nonces)
        self._names: frozenset[str] = frozenset()
        self._wildcard = False
        self._no_name_yet = True  # until the first name, an empty list of names means all (and is no wish for none)
        self._owed = False  # a response is due even if it tells nothing new
        self._stale = False  # what the client has been told may differ from what is
        self._told: Mapping[str, str] = {}  # never modified, since it is often shared among streams

    def advance(self, resources: ResourceSet) -> None:
        first, self._resources = self._resources is None, resources
        if first or (resources.changed if self._wildcard else not resources.changed.isdisjoint(self._names)):
            self._stale = True

    def resend(self, names: Iterable[str]) -> None:
        if any(map(self.covers, names)):
            self._owed = True

    def covers(self, name: str) -> bool:
        return self._wildcard or name in self._names

    def _subscribe(self, names: tuple[str, ...]) -> None:
        wanted = frozenset(names)
        wildcard = WILDCARD in wanted or (not wanted and self._no_name_yet)
        if wanted:
            self._no_name_yet = False
        wanted -= {WILDCARD}
        refused = self._sent is not None and self._sent.refused
        if refused and (wanted, wildcard) != (self._names, self._wildcard):
            self._owed = wildcard or bool(wanted)  # of what it refused as a whole, it may take the part it wants now
        if wildcard and not self._wildcard:
            self._owed = True
        if not wanted <= self._names:
            self._stale = True
        self._wildcard, self._names = wildcard, wanted
        if not wildcard:
            self._told = {name: version for name, version in self._told.items() if name in wanted}

    def _reconsider(self, names: Iterable[str]) -> None:
        self._stale = self._stale or any(map(self.covers, names))

    def _compose(self, resources: ResourceSet, _hold: Callable[[Resource], bool]) -> _Due | None:
        if not self._stale and not self._owed:
            return None
        view, told = self._view(resources), self._told
        everything = view is resources.versions
        difference = resources.difference(told) if everything else Difference.between(told, view)
        if difference.same and not self._owed:
            self._stale = False
            return None
        self._told, self._stale, self._owed = view, False, False
        listed: Sequence[Resource]
        if everything:
            version, listed, missing = resources.version_of_all, resources.everything, []
        else:
            version = version_of_all(view.values())
            listed = [resource for name in view if (resource := self._find(name)) is not None]
            missing = sorted(name for name in view if not view[name])
        shared = resources.sotw_message(version, listed, missing, timed=self.timed)
        return _Due(version, listed, difference.changed, difference.new, shared)

    def _heartbeat(self, version: str, mortal: list[Resource]) -> bytes:  # noqa: ARG002
        """All of it again, which is no change: a response with heartbeats alone removes the rest from Envoy, for which
        they do not count as resources (grpc_mux_impl.cc, processDiscoveryResources)."""
        listed = [resource for name in self._told if (resource := self._find(name)) is not None]
        return sotw_body(self.resource_type, version, listed, timed=True)

    def _view(self, resources: ResourceSet) -> Mapping[str, str]:
        """What the client should have: the version of each resource, `ABSENT` for names of which there is none."""
        if not self._wildcard:
            return {name: found.version if (found := self._find(name)) else ABSENT for name in sorted(self._names)}
        retained = {name: kept.version for name, kept in self._retained.items() if name not in resources.versions}
        missing = {name: ABSENT for name in self._names if name not in resources.versions and name not in retained}
        return {**resources.versions, **retained, **missing} if retained or missing else resources.versions

    def _told_version(self, name: str) -> str:
        return self._told.get(name, ABSENT)


class PartialSubscription(SotwSubscription):
    """EDS and RDS: by name only; a response holds what changed, and says nothing of what is gone."""

    __slots__ = ("_due", "_named", "_sum")

    def __init__(self, resource_type: ResourceType, nonces: Nonces) -> None:
        super().__init__(resource_type, nonces)
        self._told: dict[str, str] = {}  # by each name subscribed to; `ABSENT` where nothing was sent
        self._named: tuple[str, ...] = ()  # as the client named them last
        self._due: set[str] = set()
        self._sum = 0  # of the versions in `_told`

    def advance(self, resources: ResourceSet) -> None:
        first, self._resources = self._resources is None, resources
        self._review(list(self._told) if first else resources.changed & self._told.keys())

    def _review(self, names: Iterable[str]) -> None:
        assert self._resources is not None
        for name in names:
            version = found.version if (found := self._find(name)) else ABSENT
            if version == ABSENT:
                self._tell(name, ABSENT)
            if version == self._told[name]:
                self._due.discard(name)
            else:
                self._due.add(name)

    def resend(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._told and self._resources is not None and self._find(name) is not None:
                self._tell(name, ABSENT)
                self._due.add(name)

    def covers(self, name: str) -> bool:
        return name in self._told

    def _subscribe(self, names: tuple[str, ...]) -> None:
        if names == self._named:  # an answer repeats them
            return
        self._named = names
        wanted = frozenset(names)
        for name in self._told.keys() - wanted:
            self._tell(name, ABSENT)
            del self._told[name]
            self._due.discard(name)
        for name in wanted - self._told.keys():
            self._told[name] = ABSENT
            if self._resources is not None and self._find(name) is not None:
                self._due.add(name)

    def _reconsider(self, names: Iterable[str]) -> None:
        self._review(self._told.keys() & names)

    def _compose(self, resources: ResourceSet, hold: Callable[[Resource], bool]) -> _Due | None:
        if not self._due:
            return None
        due: _Part | None
        if self._retained or hold is not hold_nothing:
            due = self._part(hold)
        else:  # all streams that have been told the same, which the sum of the versions tells, are due the same
            key = (self._sum, frozenset(self._due), self.timed)
            due = resources.shared(key, lambda: self._part(hold))
        if due is None:
            return None
        self._told.update(due.told)
        self._sum = due.sum
        self._due -= due.changed
        return due

    def _part(self, hold: Callable[[Resource], bool]) -> _Part | None:
        """Of what is due, as much as a response may hold."""
        assert self._resources is not None
        part: list[Resource] = []
        size = 0
        for name in sorted(self._due):
            resource = self._find(name)
            assert resource is not None, "what is gone is never due"
            if hold(resource):
                continue
            size += len(resource.framed)
            if part and size > MAX_RESPONSE_SIZE:
                break
            part.append(resource)
        if not part:
            return None
        names = frozenset(resource.name for resource in part)
        new = frozenset(name for name in names if self._told[name] == ABSENT)
        told = {resource.name: resource.version for resource in part}
        hashes = self._sum + sum(_hash(version) - _hash(self._told[name]) for name, version in told.items())
        version = version_of_sum(hashes)
        shared = self._resources.sotw_message(version, part, (), timed=self.timed)
        return _Part(version, part, names, new, shared, told=told, sum=hashes)

    def _heartbeat(self, version: str, mortal: list[Resource]) -> bytes:
        return sotw_heartbeat(self.resource_type, version, mortal)

    def _tell(self, name: str, version: str) -> None:
        self._sum += _hash(version) - _hash(self._told[name])
        self._told[name] = version

    def _told_version(self, name: str) -> str:
        return self._told.get(name, ABSENT)


def _hash(version: str) -> int:
    return int(version, 16) if version else 0
