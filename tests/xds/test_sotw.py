"""The state-of-the-world state machine, without a network. Names of tests bear the rule they check."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from lbcore.xds.nonces import Nonces
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.sotw import SotwRequest, SotwSubscription, sotw_subscription
from lbcore.xds.subscription import MAX_RESPONSE_SIZE, Verdict
from tests.xds.worlds import World, named

CLUSTER, ASSIGNMENT = ResourceType.CLUSTER, ResourceType.ASSIGNMENT


class Client:
    """A client of one subscription: sends requests, reads responses, keeps the newest version and nonce."""

    def __init__(self, world: World, *, known: bool = True) -> None:
        self.world = world
        self.subscription: SotwSubscription = sotw_subscription(world.resource_type, Nonces())
        if known:
            self.subscription.advance(world.resources)
        self.version = ""
        self.nonce = ""

    def ask(self, *names: str, nonce: str | None = None, version: str | None = None) -> Verdict | None:
        """A request with the newest nonce and version unless told otherwise."""
        request = SotwRequest(
            names=names,
            nonce=self.nonce if nonce is None else nonce,
            version=self.version if version is None else version,
        )
        return self.subscription.receive(request)

    def refuse(self, *names: str) -> Verdict | None:
        return self.subscription.receive(
            SotwRequest(names=names, nonce=self.nonce, version=self.version, error="no good")
        )

    def read(self) -> discovery_pb2.DiscoveryResponse | None:
        """What is due, None if nothing is."""
        response = self.subscription.respond()
        if response is None:
            return None
        message = discovery_pb2.DiscoveryResponse.FromString(response.message)
        self.nonce = message.nonce
        self.version = message.version_info
        return message

    def take(self) -> dict[str, int] | None:
        """The contents of what is due, None if nothing is."""
        message = self.read()
        return None if message is None else dict(map(named, message.resources))

    def settle(self, *names: str) -> dict[str, int] | None:
        """Reads one response and accepts it."""
        contents = self.take()
        assert contents is not None, "nothing was due"
        self.ask(*names)
        return contents

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


def test_s1_a_first_request_is_answered_with_all_that_it_names(eds: Client) -> None:
    eds.ask("a", "b")
    message = eds.read()
    assert message is not None
    assert dict(map(named, message.resources)) == {"a": 1, "b": 1}
    assert message.version_info
    assert message.nonce
    assert message.type_url == ASSIGNMENT.type_url
    assert {each.type_url for each in message.resources} == {ASSIGNMENT.type_url}


@pytest.mark.parametrize("client", ["eds", "cds"])
def test_s2_an_ack_is_followed_by_silence(client: str, request: pytest.FixtureRequest) -> None:
    subscriber: Client = request.getfixturevalue(client)
    subscriber.ask("a", "b")
    subscriber.settle("a", "b")
    assert subscriber.take() is None


def test_s2_an_ack_is_reported_once(eds: Client) -> None:
    eds.ask("a")
    eds.take()
    assert eds.ask("a") == Verdict(eds.version, eds.nonce)
    assert eds.ask("a") is None


def test_s3_a_change_has_a_new_version_and_a_new_nonce(eds: Client) -> None:
    eds.ask("a", "b")
    eds.settle("a", "b")
    before = eds.version, eds.nonce
    eds.follow(eds.world.change(a=2))
    assert eds.take() == {"a": 2}
    assert eds.version != before[0]
    assert eds.nonce != before[1]


@pytest.mark.parametrize("client", ["eds", "cds"])
def test_s4_what_was_refused_is_not_sent_again_until_it_changes(client: str, request: pytest.FixtureRequest) -> None:
    subscriber: Client = request.getfixturevalue(client)
    subscriber.ask("a")
    subscriber.take()
    verdict = subscriber.refuse("a")
    assert verdict == Verdict(subscriber.version, subscriber.nonce, "no good")
    assert subscriber.take() is None
    subscriber.follow(subscriber.world.change(b=2))
    assert subscriber.take() is None
    subscriber.follow(subscriber.world.change(a=2))
    assert subscriber.take() == {"a": 2}


def test_s6_new_names_beside_an_older_version_are_no_nack(eds: Client) -> None:
    eds.ask("a")
    eds.settle("a")
    in_use = eds.version
    eds.follow(eds.world.change(a=2))
    eds.take()
    eds.refuse("a")
    assert eds.ask("a", "b", version=in_use) is None
    assert eds.take() == {"b": 1}


def test_s6_an_older_version_without_an_error_is_no_ack_either(eds: Client) -> None:
    eds.ask("a")
    eds.take()
    assert eds.ask("a", version="older") is None
    assert not eds.subscription.settled("a")


def test_s6_fewer_names_after_a_nack_are_delivered_without_what_was_refused(cds: Client) -> None:
    cds.ask()
    cds.take()
    cds.refuse()
    cds.ask("a", version="")
    assert cds.take() == {"a": 1}


def test_s7_a_stale_nonce_changes_nothing(eds: Client) -> None:
    eds.ask("a")
    eds.settle("a")
    stale = eds.nonce
    eds.follow(eds.world.change(a=2))
    eds.take()
    assert eds.ask("a", "b", nonce=stale) is None
    assert eds.take() is None
    eds.ask("a", "b")
    assert eds.take() == {"b": 1}


def test_s7_an_empty_nonce_is_stale_once_the_client_has_answered(eds: Client) -> None:
    eds.ask("a")
    eds.settle("a")
    eds.ask("a", "b", nonce="")
    assert eds.take() is None


def test_s8_a_new_name_is_delivered_although_nothing_changed(eds: Client) -> None:
    eds.ask("a")
    eds.settle("a")
    eds.ask("a", "b")
    assert eds.take() == {"b": 1}


@pytest.mark.parametrize("client", ["eds", "cds"])
def test_s9_a_name_dropped_and_taken_up_again_is_delivered_again(client: str, request: pytest.FixtureRequest) -> None:
    subscriber: Client = request.getfixturevalue(client)
    subscriber.ask("a", "b")
    subscriber.settle("a", "b")
    subscriber.ask("a")
    subscriber.ask("a", "b")
    assert "b" in subscriber.settle("a", "b")


@pytest.mark.parametrize("client", ["eds", "cds"])
def test_s10_a_name_dropped_is_not_followed(client: str, request: pytest.FixtureRequest) -> None:
    subscriber: Client = request.getfixturevalue(client)
    subscriber.ask("a", "b")
    subscriber.settle("a", "b")
    subscriber.ask("a")
    subscriber.follow(subscriber.world.change(b=2))
    assert subscriber.take() is None


def test_s10_a_name_dropped_before_it_was_sent_is_not_sent(eds: Client) -> None:
    eds.ask("a", "b")
    eds.ask("a")
    assert eds.take() == {"a": 1}


@pytest.mark.parametrize("client", ["eds", "cds"])
def test_s11_no_names_after_names_mean_nothing(client: str, request: pytest.FixtureRequest) -> None:
    subscriber: Client = request.getfixturevalue(client)
    subscriber.ask("a")
    subscriber.settle("a")
    subscriber.ask()
    subscriber.follow(subscriber.world.change(a=2, b=2))
    assert subscriber.take() is None


@pytest.mark.parametrize("names", [(), ("*",)])
def test_s12_a_wildcard_is_answered_with_everything(cds: Client, names: Sequence[str]) -> None:
    cds.ask(*names)
    assert cds.settle(*names) == {"a": 1, "b": 1, "c": 1}
    cds.follow(cds.world.change(d=1))
    assert cds.take() == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_s13_from_all_to_all_and_one_to_one_to_none(cds: Client) -> None:
    cds.ask()
    assert cds.settle() == {"a": 1, "b": 1, "c": 1}
    cds.ask("*", "a")
    cds.follow(cds.world.change(b=2))
    assert cds.settle("*", "a") == {"a": 1, "b": 2, "c": 1}
    cds.ask("a")
    cds.follow(cds.world.change(b=3))
    assert cds.take() is None
    cds.follow(cds.world.change(a=2))
    assert cds.settle("a") == {"a": 2}
    cds.ask()
    cds.follow(cds.world.change(a=3))
    assert cds.take() is None


def test_s14_endpoints_cannot_be_had_by_wildcard(eds: Client) -> None:
    eds.ask()
    assert eds.take() is None
    eds.ask("*")
    assert eds.take() is None


def test_s15_a_cluster_response_lists_all_of_them(cds: Client) -> None:
    cds.ask()
    cds.settle()
    cds.follow(cds.world.change(b=2))
    assert cds.take() == {"a": 1, "b": 2, "c": 1}


def test_s16_a_removed_cluster_is_left_out_and_the_last_one_leaves_nothing(cds: Client) -> None:
    cds.ask()
    cds.settle()
    cds.follow(cds.world.remove("a"))
    assert cds.settle() == {"b": 1, "c": 1}
    cds.follow(cds.world.remove("b", "c"))
    assert cds.take() == {}


def test_s16_a_removed_assignment_is_not_mentioned_and_sent_when_it_is_back(eds: Client) -> None:
    eds.ask("a", "b")
    eds.settle("a", "b")
    eds.follow(eds.world.remove("a"))
    assert eds.take() is None
    eds.follow(eds.world.change(a=1))
    assert eds.take() == {"a": 1}


def test_s17_a_name_that_does_not_exist_stalls_nothing_and_is_sent_when_it_does(eds: Client) -> None:
    eds.ask("a", "missing")
    assert eds.settle("a", "missing") == {"a": 1}
    eds.follow(eds.world.change(missing=1))
    assert eds.take() == {"missing": 1}


def test_a_cluster_that_does_not_exist_is_reported_as_missing(cds: Client) -> None:
    cds.ask("a", "nowhere")
    message = cds.read()
    assert message is not None
    assert [(each.resource_name.name, each.error_detail.code) for each in message.resource_errors] == [("nowhere", 5)]


def test_s19_endpoints_are_sent_again_when_asked_for_although_unchanged(eds: Client) -> None:
    eds.ask("a", "b")
    eds.settle("a", "b")
    version = eds.version
    eds.subscription.resend(["a", "z"])
    assert eds.take() == {"a": 1}
    assert eds.version == version


def test_s19_endpoints_owed_again_stay_owed_although_they_changed_and_changed_back(eds: Client) -> None:
    eds.ask("a")
    eds.settle("a")
    eds.subscription.resend(["a"])
    eds.follow(eds.world.change(a=2))
    eds.follow(eds.world.change(a=1))
    assert eds.take() == {"a": 1}


def test_s22_a_reconnecting_client_gets_what_it_names(eds: Client) -> None:
    eds.ask("a")
    eds.settle("a")
    again = Client(eds.world)
    again.ask("a", version=eds.version)
    assert again.take() == {"a": 1}


def test_s23_versions_follow_the_content_and_nothing_else() -> None:
    one, other = Client(World(ASSIGNMENT, {"a": 1, "b": 1})), Client(World(ASSIGNMENT, {"a": 5, "b": 1}))
    one.ask("a", "b")
    one.settle("a", "b")
    other.ask("b", "a")
    other.settle("b", "a")
    assert one.version != other.version
    other.follow(other.world.change(a=1))
    other.take()
    assert one.version == other.version


def test_s23_a_version_speaks_of_what_is_subscribed_to_and_not_of_the_past(eds: Client) -> None:
    eds.ask("a", "b")
    eds.settle("a", "b")
    eds.ask("a")
    eds.follow(eds.world.change(a=2))
    eds.settle("a")
    newcomer = Client(eds.world)
    newcomer.ask("a")
    newcomer.settle("a")
    assert newcomer.version == eds.version


@pytest.mark.parametrize("client", ["eds", "cds"])
def test_s24_changes_behind_an_unanswered_response_become_one(client: str, request: pytest.FixtureRequest) -> None:
    subscriber: Client = request.getfixturevalue(client)
    subscriber.ask("a")
    subscriber.take()
    for content in range(2, 6):
        subscriber.follow(subscriber.world.change(a=content))
        assert subscriber.subscription.respond() is None
    subscriber.ask("a")
    assert subscriber.settle("a") == {"a": 5}
    assert subscriber.take() is None


def test_s25_an_ack_with_new_names_is_both(eds: Client) -> None:
    eds.ask("a")
    eds.take()
    assert eds.ask("a", "b") == Verdict(eds.version, eds.nonce)
    assert eds.take() == {"b": 1}
    assert eds.subscription.respond() is None


def test_a9_a_request_that_crosses_the_first_response_is_served(eds: Client) -> None:
    eds.ask("a")
    eds.take()
    eds.ask("a", "b", nonce="", version="")
    assert eds.take() == {"b": 1}


def test_a9_the_answer_to_the_newest_response_settles_those_before_it(eds: Client) -> None:
    eds.ask("a")
    eds.take()
    eds.ask("a", "b", nonce="", version="")
    eds.settle("a", "b")
    assert eds.subscription.settled("a")
    assert eds.subscription.settled("b")


def test_a4_a_nonce_of_another_stream_is_no_obstacle(eds: Client) -> None:
    eds.ask("a", nonce="from-before", version="from-before")
    assert eds.take() == {"a": 1}


@pytest.mark.parametrize(("kind", "names"), [(ASSIGNMENT, ("a",)), (CLUSTER, ())])
def test_r1_nothing_is_answered_before_anything_is_known(kind: ResourceType, names: Sequence[str]) -> None:
    client = Client(World(kind, {"a": 1}), known=False)
    client.ask(*names)
    assert client.take() is None
    client.follow(client.world.resources)
    assert client.take() == {"a": 1}


def test_a_wildcard_client_is_answered_even_if_there_is_nothing() -> None:
    client = Client(World(CLUSTER, {}))
    client.ask()
    assert client.settle() == {}
    assert client.take() is None


def test_a_change_taken_back_before_it_was_sent_is_not_sent(eds: Client) -> None:
    eds.ask("a")
    eds.take()
    eds.follow(eds.world.change(a=2))
    eds.follow(eds.world.change(a=1))
    eds.ask("a")
    assert eds.take() is None


def test_large_assignments_are_sent_in_parts() -> None:
    names = ["x" * (MAX_RESPONSE_SIZE // 3) + str(number) for number in range(5)]
    client = Client(World(ASSIGNMENT, dict.fromkeys(names, 1)))
    client.ask(*names)
    parts = []
    while (part := client.take()) is not None:
        parts.append(part)
        client.ask(*names)
    assert len(parts) == 3
    assert sorted(name for part in parts for name in part) == names


def test_what_is_held_stays_due(eds: Client) -> None:
    eds.ask("a")
    assert eds.subscription.respond(lambda _: True) is None
    assert eds.settle("a") == {"a": 1}
    eds.follow(eds.world.change(a=2))
    assert eds.subscription.respond(lambda _: True) is None
    assert eds.take() == {"a": 2}


@pytest.mark.parametrize("client", ["eds", "cds"])
def test_what_is_new_is_settled_by_its_ack_and_not_by_a_nack(client: str, request: pytest.FixtureRequest) -> None:
    subscriber: Client = request.getfixturevalue(client)
    subscriber.ask("a")
    assert not subscriber.subscription.settled("a")
    subscriber.take()
    assert not subscriber.subscription.settled("a")
    subscriber.refuse("a")
    assert not subscriber.subscription.settled("a")
    subscriber.follow(subscriber.world.change(a=2))
    subscriber.settle("a")
    assert subscriber.subscription.settled("a")
    subscriber.follow(subscriber.world.change(a=3))
    subscriber.take()
    assert subscriber.subscription.settled("a"), "it has an earlier version"


def test_a_retained_cluster_stays_until_it_is_released(cds: Client) -> None:
    cds.ask()
    cds.settle()
    gone = cds.world.resources.get("a")
    assert gone is not None
    cds.subscription.retain(gone)
    cds.follow(cds.world.change(b=2))
    cds.follow(cds.world.remove("a"))
    assert cds.settle() == {"a": 1, "b": 2, "c": 1}
    cds.subscription.release(lambda name: name == "a")
    assert cds.take() is None
    cds.subscription.release(lambda _: False)
    assert cds.take() == {"b": 2, "c": 1}
