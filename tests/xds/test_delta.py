"""The delta state machine, without a network. Names of tests bear the rule they check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from lbcore.xds.delta import DeltaRequest, DeltaSubscription
from lbcore.xds.nonces import Nonces
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.subscription import MAX_RESPONSE_SIZE, Verdict
from tests.xds.worlds import World, named

CLUSTER, ASSIGNMENT = ResourceType.CLUSTER, ResourceType.ASSIGNMENT


class Told(NamedTuple):
    """What one response says."""

    resources: dict[str, int]
    removed: list[str]


class Client:
    """A client of one subscription; it answers a response only when told to."""

    def __init__(self, world: World, *, known: bool = True) -> None:
        self.world = world
        self.subscription = DeltaSubscription(world.resource_type, Nonces())
        if known:
            self.subscription.advance(world.resources)
        self.nonce = self.version = ""
        self.versions: dict[str, str] = {}

    def ask(
        self, *subscribe: str, drop: Sequence[str] = (), has: Mapping[str, str] | None = None, nonce: str = ""
    ) -> Verdict | None:
        return self.subscription.receive(
            DeltaRequest(subscribe=subscribe, unsubscribe=tuple(drop), initial_versions=has or {}, nonce=nonce)
        )

    def read(self) -> discovery_pb2.DeltaDiscoveryResponse | None:
        response = self.subscription.respond()
        if response is None:
            return None
        message = discovery_pb2.DeltaDiscoveryResponse.FromString(response.message)
        self.nonce, self.version = message.nonce, message.system_version_info
        self.versions |= {each.name: each.version for each in message.resources}
        return message

    def take(self) -> Told | None:
        message = self.read()
        if message is None:
            return None
        names = [each.name for each in message.resources] + list(message.removed_resources)
        assert len(names) == len(set(names)), "D15: a name appears once"
        return Told(dict(named(each.resource) for each in message.resources), list(message.removed_resources))

    def accept(self) -> Verdict | None:
        return self.subscription.receive(DeltaRequest(nonce=self.nonce))

    def refuse(self) -> Verdict | None:
        return self.subscription.receive(DeltaRequest(nonce=self.nonce, error="no good"))

    def settle(self) -> Told:
        told = self.take()
        assert told is not None, "nothing was due"
        self.accept()
        return told

    def follow(self, resources: object) -> None:
        self.subscription.advance(resources)  # type: ignore[arg-type]


@pytest.fixture
def eds() -> Client:
    """A client of assignments a, b and c."""
    return Client(World(ASSIGNMENT, {"a": 1, "b": 1, "c": 1}))


@pytest.fixture
def cds() -> Client:
    """A client of clusters a, b and c."""
    return Client(World(CLUSTER, {"a": 1, "b": 1, "c": 1}))


def test_d1_a_subscription_is_answered_with_names_and_versions(eds: Client) -> None:
    eds.ask("a", "b")
    message = eds.read()
    assert message is not None
    assert {each.name: named(each.resource) for each in message.resources} == {"a": ("a", 1), "b": ("b", 1)}
    assert all(each.version for each in message.resources)
    assert message.nonce
    assert message.type_url == ASSIGNMENT.type_url


def test_d2_an_ack_is_followed_by_silence(eds: Client) -> None:
    eds.ask("a")
    eds.take()
    assert eds.accept() == Verdict(eds.version, eds.nonce)
    assert eds.take() is None


def test_d3_only_what_changed_is_sent(cds: Client) -> None:
    cds.ask()
    cds.settle()
    cds.follow(cds.world.change(a=2))
    assert cds.take() == Told({"a": 2}, [])


def test_d4_what_was_refused_is_not_sent_again_and_the_rest_flows(eds: Client) -> None:
    eds.ask("a", "b")
    eds.take()
    assert eds.refuse() == Verdict(eds.version, eds.nonce, "no good")
    assert eds.take() is None
    eds.follow(eds.world.change(b=2))
    assert eds.settle() == Told({"b": 2}, [])
    eds.follow(eds.world.change(a=2))
    assert eds.take() == Told({"a": 2}, [])


@pytest.mark.parametrize("client", ["eds", "cds"])
def test_d5_a_name_that_does_not_exist_is_said_to_be_gone_and_sent_when_it_does(
    client: str, request: pytest.FixtureRequest
) -> None:
    subscriber: Client = request.getfixturevalue(client)
    subscriber.ask("z")
    assert subscriber.settle() == Told({}, ["z"])
    subscriber.follow(subscriber.world.change(z=1))
    assert subscriber.take() == Told({"z": 1}, [])


def test_d6_a_name_asked_for_again_is_sent_again(eds: Client) -> None:
    eds.ask("a", "b")
    eds.settle()
    eds.ask("a")
    assert eds.take() == Told({"a": 1}, [])


def test_d6_a_name_asked_for_again_does_not_wait_for_an_answer(eds: Client) -> None:
    eds.ask("a")
    eds.take()
    eds.ask("a")
    assert eds.take() == Told({"a": 1}, [])


def test_d6_a_name_asked_for_again_is_sent_although_it_changed_and_changed_back_meanwhile(eds: Client) -> None:
    eds.ask("a")
    eds.settle()
    eds.ask("a")
    eds.follow(eds.world.change(a=2))
    eds.follow(eds.world.change(a=1))
    assert eds.take() == Told({"a": 1}, [])


def test_d7_a_name_dropped_is_not_followed_and_one_never_had_is_ignored(eds: Client) -> None:
    eds.ask("a", "b")
    eds.settle()
    eds.ask(drop=["a", "never"])
    assert eds.take() is None
    eds.follow(eds.world.change(a=2))
    assert eds.take() is None


def test_d8_a_name_dropped_beside_a_wildcard_is_answered_with_what_there_is(cds: Client) -> None:
    cds.ask("*", "a", "z")
    cds.settle()
    cds.ask(drop=["a"])
    assert cds.settle() == Told({"a": 1}, [])
    cds.ask(drop=["z"])
    assert cds.settle() == Told({}, ["z"])


def test_d9_a_first_request_for_nothing_is_a_wildcard_answered_even_if_empty() -> None:
    client = Client(World(CLUSTER, {}))
    client.ask()
    assert client.settle() == Told({}, [])
    client.follow(client.world.change(a=1))
    assert client.take() == Told({"a": 1}, [])


def test_d10_a_wildcard_once_dropped_does_not_come_back(cds: Client) -> None:
    cds.ask()
    assert cds.settle() == Told({"a": 1, "b": 1, "c": 1}, [])
    cds.ask("a")
    assert cds.settle() == Told({"a": 1}, [])
    cds.ask(drop=["*"])
    cds.follow(cds.world.change(a=2, b=2))
    assert cds.settle() == Told({"a": 2}, [])
    cds.ask(drop=["a"])
    cds.ask()
    cds.follow(cds.world.change(a=3, b=3))
    assert cds.take() is None


def test_d10_a_wildcard_taken_up_again_covers_what_was_on_its_way_and_is_gone(cds: Client) -> None:
    cds.ask()
    cds.take()
    cds.follow(cds.world.remove("a"))
    cds.ask(drop=["*"])
    cds.ask("*")
    assert cds.take() == Told({"b": 1, "c": 1}, ["a"])


@pytest.mark.parametrize(("kind", "names"), [(CLUSTER, ()), (ASSIGNMENT, ("a", "b", "c"))])
def test_d11_a_reconnecting_client_is_told_only_the_difference(kind: ResourceType, names: Sequence[str]) -> None:
    world = World(kind, {"a": 1, "b": 1, "c": 1})
    before = Client(world)
    before.ask(*names)
    before.settle()
    world.change(b=2)
    world.remove("c")
    after = Client(world)
    after.ask(*names, has=before.versions)
    assert after.take() == Told({"b": 2}, ["c"])


def test_d12_versions_count_in_the_first_request_only(eds: Client) -> None:
    eds.ask("a")
    eds.settle()
    eds.ask("b", has=dict(eds.versions, b="whatever", c="whatever"))
    assert eds.settle() == Told({"b": 1}, [])
    eds.follow(eds.world.change(c=2))
    assert eds.take() is None


def test_d13_a_subscription_with_a_stale_nonce_counts(eds: Client) -> None:
    eds.ask("a")
    eds.settle()
    eds.ask("b", nonce="stale")
    assert eds.take() == Told({"b": 1}, [])


def test_d14_a_removal_is_told_once_and_a_return_is_sent(cds: Client) -> None:
    cds.ask()
    cds.settle()
    cds.follow(cds.world.remove("a"))
    assert cds.settle() == Told({}, ["a"])
    cds.follow(cds.world.change(b=2))
    assert cds.settle() == Told({"b": 2}, [])
    cds.follow(cds.world.change(a=1))
    assert cds.take() == Told({"a": 1}, [])


def test_d14_what_comes_and_goes_before_it_was_sent_is_not_mentioned(eds: Client) -> None:
    eds.ask("z")
    assert eds.settle() == Told({}, ["z"])
    eds.follow(eds.world.change(z=1))
    eds.follow(eds.world.remove("z"))
    assert eds.take() is None


def test_d16_endpoints_are_sent_again_unasked_although_unchanged(eds: Client) -> None:
    eds.ask("a", "b")
    eds.settle()
    eds.subscription.resend(["a", "z"])
    assert eds.take() == Told({"a": 1}, [])


def test_d16_endpoints_owed_again_stay_owed_although_they_changed_and_changed_back(eds: Client) -> None:
    eds.ask("a")
    eds.settle()
    eds.subscription.resend(["a"])
    eds.follow(eds.world.change(a=2))
    eds.follow(eds.world.change(a=1))
    assert eds.take() == Told({"a": 1}, [])


def test_d18_a_client_that_is_current_is_sent_nothing(cds: Client) -> None:
    cds.ask()
    cds.settle()
    replica = Client(World(CLUSTER, {"c": 1, "b": 1, "a": 1}))
    replica.ask(has=cds.versions)
    assert replica.take() is None


def test_d19_a_large_answer_comes_in_parts_without_waiting() -> None:
    names = ["x" * (MAX_RESPONSE_SIZE // 6) + str(number) for number in range(5)]
    client = Client(World(ASSIGNMENT, dict.fromkeys(names, 1)))
    client.ask(*names)
    nonces, sizes, told = [], [], []
    while (message := client.read()) is not None:
        nonces.append(message.nonce)
        sizes.append(message.ByteSize())
        told += [each.name for each in message.resources]
    assert len(set(nonces)) == len(nonces) == 3
    assert max(sizes) < 4 << 20
    assert told == names


def test_d20_subscribed_and_unsubscribed_at_once_is_unsubscribed(eds: Client) -> None:
    eds.ask("a", drop=["a"])
    assert eds.take() is None
    eds.follow(eds.world.change(a=2))
    assert eds.take() is None


def test_s24_changes_behind_an_unanswered_response_become_one(eds: Client) -> None:
    eds.ask("a", "b")
    eds.take()
    for content in range(2, 6):
        eds.follow(eds.world.change(a=content))
        assert eds.take() is None
    eds.accept()
    assert eds.settle() == Told({"a": 5}, [])
    assert eds.take() is None


def test_s14_endpoints_cannot_be_had_by_wildcard(eds: Client) -> None:
    eds.ask()
    assert eds.take() is None


@pytest.mark.parametrize(("kind", "names"), [(ASSIGNMENT, ("a",)), (CLUSTER, ())])
def test_r1_nothing_is_answered_before_anything_is_known(kind: ResourceType, names: Sequence[str]) -> None:
    client = Client(World(kind, {"a": 1}), known=False)
    client.ask(*names)
    assert client.take() is None
    client.follow(client.world.resources)
    assert client.take() == Told({"a": 1}, [])


def test_a_retained_cluster_stays_until_it_is_released(cds: Client) -> None:
    cds.ask()
    cds.settle()
    gone = cds.world.resources.get("a")
    assert gone is not None
    cds.subscription.retain(gone)
    cds.follow(cds.world.remove("a"))
    assert cds.take() is None
    cds.subscription.release(lambda _: False)
    assert cds.take() == Told({}, ["a"])


def test_what_is_new_is_settled_by_its_ack_and_not_by_a_nack(eds: Client) -> None:
    eds.ask("a")
    eds.take()
    assert not eds.subscription.settled("a")
    eds.refuse()
    assert not eds.subscription.settled("a")
    eds.follow(eds.world.change(a=2))
    eds.settle()
    assert eds.subscription.settled("a")
    eds.ask(drop=["a"])
    assert not eds.subscription.settled("a")


def test_what_a_reconnecting_client_has_is_settled(eds: Client) -> None:
    eds.ask("a")
    eds.settle()
    again = Client(eds.world)
    again.ask("a", has=eds.versions)
    assert again.subscription.settled("a")


def test_what_is_held_stays_due(eds: Client) -> None:
    eds.ask("a")
    assert eds.subscription.respond(lambda _: True) is None
    assert eds.settle() == Told({"a": 1}, [])
    eds.follow(eds.world.change(a=2))
    assert eds.subscription.respond(lambda _: True) is None
    assert eds.take() == Told({"a": 2}, [])
