"""Random histories of a state-of-the-world stream against a plain model of what the client must end up knowing."""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbcore.xds.nonces import Nonces
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.sotw import SotwRequest, sotw_subscription
from tests.xds.worlds import World, named

NAMES = ["a", "b", "c", "d"]
REFUSED = 3  # a client refuses a response that holds this content

names = st.sets(st.sampled_from(NAMES))
contents = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 4))


class SotwStream(RuleBasedStateMachine):
    """A client that reads when it likes, answers when it likes, and reconnects; a world that changes meanwhile."""

    resource_type: ResourceType

    @initialize(contents=contents, known=st.booleans())
    def start(self, contents: dict[str, int], known: bool) -> None:
        self.world = World(self.resource_type, contents)
        self.known = known
        self.client: dict[str, int] = {}  # what it has accepted
        self.wanted: list[str] = []
        self.wildcard = False
        self.version = ""
        self.nonces: set[str] = set()
        self.connect()

    def connect(self) -> None:
        self.subscription = sotw_subscription(self.resource_type, Nonces())
        if self.known:
            self.subscription.advance(self.world.resources)
        self.subscribed = False
        self.named_once = False
        self.unanswered: discovery_pb2.DiscoveryResponse | None = None
        self.nonce = ""
        self.stale: list[str] = []
        self.told: dict[str, int] = {}

    def send(self, nonce: str, error: str | None = None) -> None:
        self.subscription.receive(SotwRequest(names=tuple(self.wanted), nonce=nonce, version=self.version, error=error))

    @rule(contents=contents)
    def change(self, contents: dict[str, int]) -> None:
        self.world.become(contents)
        if self.known:
            self.subscription.advance(self.world.resources)

    @rule()
    @precondition(lambda self: not self.known)
    def learn(self) -> None:
        self.known = True
        self.subscription.advance(self.world.resources)

    @rule(wanted=names, star=st.booleans())
    @precondition(lambda self: self.unanswered is None)
    def want(self, wanted: set[str], star: bool) -> None:
        self.wanted = sorted(wanted) + ["*"] * (star and self.resource_type.whole)
        if self.resource_type.whole:
            self.wildcard = "*" in self.wanted or (not self.wanted and not self.named_once)
            self.named_once = self.named_once or bool(self.wanted)
        kept = set(self.wanted)
        self.told = {name: content for name, content in self.told.items() if self.wildcard or name in kept}
        self.client = {name: content for name, content in self.client.items() if self.wildcard or name in kept}
        self.send(self.nonce)
        self.subscribed = True

    @rule()
    @precondition(lambda self: self.unanswered is None)
    def read(self) -> None:
        response = self.subscription.respond()
        if response is None:
            return
        assert self.known, "R1: nothing is sent before anything is known"
        message = discovery_pb2.DiscoveryResponse.FromString(response.message)
        assert message.nonce not in self.nonces
        self.nonces.add(message.nonce)
        sent = [named(each) for each in message.resources]
        assert len(dict(sent)) == len(sent), "S18: a name appears once"
        assert all(self.wildcard or name in self.wanted for name, _ in sent), "only what is subscribed to is sent"
        if self.resource_type.whole:
            assert dict(sent) == self.expected(), "S15: all of them are listed"
            self.told = {}
        self.told.update(sent)
        if self.nonce:
            self.stale.append(self.nonce)
        self.nonce = message.nonce
        self.unanswered = message

    @rule()
    @precondition(lambda self: self.unanswered is not None)
    def answer(self) -> None:
        message = self.unanswered
        assert message is not None
        self.unanswered = None
        sent = dict(map(named, message.resources))
        refused = REFUSED in sent.values()
        accepted = {} if refused and self.resource_type.whole else sent
        if self.resource_type.whole and not refused:
            self.client = {}
        self.client.update({name: content for name, content in accepted.items() if content != REFUSED})
        if not refused:
            self.version = message.version_info
        self.send(self.nonce, "refused" if refused else None)

    @rule(pick=st.integers(0, 10))
    @precondition(lambda self: self.stale and self.unanswered is None)
    def repeat_an_old_answer(self, pick: int) -> None:
        self.subscription.receive(SotwRequest(names=("a", "b"), nonce=self.stale[pick % len(self.stale)], version="x"))

    @rule()
    def reconnect(self) -> None:
        wanted = self.wanted
        self.connect()
        self.nonces.clear()
        self.want(set(wanted) - {"*"}, "*" in wanted)

    @invariant()
    def nothing_is_sent_while_an_answer_is_awaited(self) -> None:
        if getattr(self, "unanswered", None) is not None:
            assert self.subscription.respond() is None

    def expected(self) -> dict[str, int]:
        """The part of the world that the client is subscribed to."""
        return {n: content for n, content in self.world.contents.items() if self.wildcard or n in self.wanted}

    def teardown(self) -> None:
        if not hasattr(self, "world") or not self.subscribed:
            return
        if not self.known:
            self.learn()
        rounds = 0
        if self.unanswered is not None:
            self.answer()
        while True:
            before = self.nonce
            self.read()
            if self.nonce == before:
                break
            self.answer()
            rounds += 1
        assert rounds <= 1, "one response holds all that was due"
        expected = self.expected()
        if self.resource_type.whole:
            assert self.told == expected
            if REFUSED not in expected.values():
                assert self.client == expected
        else:
            assert {name: self.told.get(name) for name in expected} == expected
            good = {name: content for name, content in expected.items() if content != REFUSED}
            assert {name: self.client.get(name) for name in good} == good


class ClusterStream(SotwStream):
    resource_type = ResourceType.CLUSTER


class AssignmentStream(SotwStream):
    resource_type = ResourceType.ASSIGNMENT


SETTINGS = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestClusterStream = ClusterStream.TestCase
TestClusterStream.settings = SETTINGS
TestAssignmentStream = AssignmentStream.TestCase
TestAssignmentStream.settings = SETTINGS
