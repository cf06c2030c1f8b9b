"""Random histories of a delta stream against a plain model of what the client must end up knowing."""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from lbcore.xds.delta import DeltaRequest, DeltaSubscription
from lbcore.xds.nonces import Nonces
from lbcore.xds.resource_type import ResourceType
from tests.xds.worlds import World, named

NAMES = ["a", "b", "c", "d"]
REFUSED = 3  # a client refuses a resource with this content

names = st.sets(st.sampled_from(NAMES))
contents = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 4))


class DeltaStream(RuleBasedStateMachine):
    """A client that subscribes, unsubscribes, reads, answers and reconnects; a world that changes meanwhile."""

    resource_type: ResourceType

    @initialize(contents=contents, known=st.booleans(), first=names)
    def start(self, contents: dict[str, int], known: bool, first: set[str]) -> None:
        self.world = World(self.resource_type, contents)
        self.known = known
        self.client: dict[str, tuple[int, str]] = {}  # what it has accepted: content and version
        self.connect(first)

    def connect(self, first: set[str]) -> None:
        self.subscription = DeltaSubscription(self.resource_type, Nonces())
        if self.known:
            self.subscription.advance(self.world.resources)
        self.wanted = set(first)
        self.wildcard = self.resource_type.whole and not first
        self.unanswered: list[discovery_pb2.DeltaDiscoveryResponse] = []
        self.nonces: set[str] = set()
        self.client = {name: known for name, known in self.client.items() if self.wildcard or name in first}
        versions = {name: version for name, (_, version) in self.client.items()}
        self.subscription.receive(DeltaRequest(subscribe=tuple(sorted(first)), initial_versions=versions))
        self.asked_again: set[str] = set(first) | (set(NAMES) if self.wildcard else set())

    @rule(contents=contents)
    def change(self, contents: dict[str, int]) -> None:
        before = self.world.contents
        self.world.become(contents)
        if self.known:
            self.subscription.advance(self.world.resources)
        self.asked_again |= {name for name in NAMES if before.get(name) != contents.get(name)}

    @rule()
    @precondition(lambda self: not self.known)
    def learn(self) -> None:
        self.known = True
        self.subscription.advance(self.world.resources)

    @rule(add=names, drop=names, nonce=st.sampled_from(["", "stale"]))
    def resubscribe(self, add: set[str], drop: set[str], nonce: str) -> None:
        self.subscription.receive(
            DeltaRequest(subscribe=tuple(sorted(add)), unsubscribe=tuple(sorted(drop)), nonce=nonce)
        )
        self.asked_again |= add | drop
        self.wanted = (self.wanted | add) - drop
        self.forget_what_is_not_wanted()

    @rule(on=st.booleans())
    @precondition(lambda self: self.resource_type.whole)
    def turn_the_wildcard(self, on: bool) -> None:
        change = {"subscribe": ("*",)} if on else {"unsubscribe": ("*",)}
        self.subscription.receive(DeltaRequest(**change))
        self.wildcard = on
        self.asked_again |= set(NAMES)
        self.forget_what_is_not_wanted()

    @rule()
    def read(self) -> None:
        response = self.subscription.respond()
        if response is None:
            return
        assert self.known, "R1: nothing is sent before anything is known"
        message = discovery_pb2.DeltaDiscoveryResponse.FromString(response.message)
        assert message.nonce not in self.nonces
        self.nonces.add(message.nonce)
        told = [each.name for each in message.resources] + list(message.removed_resources)
        assert len(set(told)) == len(told), "D15: a name appears once"
        assert set(told) <= self.asked_again, "D2, D4: what is current is not sent again unasked"
        self.asked_again -= set(told)
        self.unanswered.append(message)
        assert self.subscription.respond() is None, "one response holds all that was due"

    @rule()
    @precondition(lambda self: self.unanswered)
    def answer(self) -> None:
        message = self.unanswered.pop(0)
        error = None
        for each in message.resources:
            _, content = named(each.resource)
            if content == REFUSED:
                error = "refused"
            else:
                self.client[each.name] = content, each.version
        for name in message.removed_resources:
            self.client.pop(name, None)
        self.forget_what_is_not_wanted()
        self.subscription.receive(DeltaRequest(nonce=message.nonce, error=error))

    @rule()
    def reconnect(self) -> None:
        self.connect(self.wanted)

    def forget_what_is_not_wanted(self) -> None:
        self.client = {name: known for name, known in self.client.items() if self.wildcard or name in self.wanted}

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        if not self.known:
            self.learn()
        for _ in range(3):
            self.read()
            while self.unanswered:
                self.answer()
        assert self.subscription.respond() is None
        expected = {n: content for n, content in self.world.contents.items() if self.wildcard or n in self.wanted}
        assert self.client.keys() <= expected.keys(), "D14: what is gone was said to be gone"
        good = {name: content for name, content in expected.items() if content != REFUSED}
        known = {name: content for name, (content, _) in self.client.items() if expected[name] != REFUSED}
        assert known == good


class ClusterStream(DeltaStream):
    resource_type = ResourceType.CLUSTER


class AssignmentStream(DeltaStream):
    resource_type = ResourceType.ASSIGNMENT


SETTINGS = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestClusterStream = ClusterStream.TestCase
TestClusterStream.settings = SETTINGS
TestAssignmentStream = AssignmentStream.TestCase
TestAssignmentStream.settings = SETTINGS
