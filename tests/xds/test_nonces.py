"""Nonces are new on each stream, and streams that are due the same are sent the same bytes."""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2

from lbcore.xds.delta import DeltaRequest, DeltaSubscription
from lbcore.xds.nonces import Nonces, SharedMessage
from lbcore.xds.requests import read_delta, read_sotw
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.sotw import SotwRequest, sotw_subscription
from tests.xds.worlds import World

BODY = b"\x0a\x01v"  # version_info


def nonce_of(message: bytes) -> str:
    return discovery_pb2.DiscoveryResponse.FromString(message).nonce


def test_streams_are_sent_one_message() -> None:
    streams = [Nonces() for _ in range(3)]
    shared = SharedMessage(BODY)
    given = [nonces.give(shared) for nonces in streams]
    assert all(nonce == shared.nonce and message is shared.message for nonce, message in given)
    assert nonce_of(shared.message) == shared.nonce


def test_a_message_that_is_sent_again_has_another_nonce() -> None:
    nonces = Nonces()
    shared = SharedMessage(BODY)
    given = [nonces.give(shared) for _ in range(3)]
    assert len({nonce for nonce, _ in given}) == 3
    for nonce, message in given:
        response = discovery_pb2.DiscoveryResponse.FromString(message)
        assert (response.nonce, response.version_info) == (nonce, "v")


def test_messages_out_of_turn_have_another_nonce() -> None:
    nonces = Nonces()
    first, second = SharedMessage(BODY), SharedMessage(BODY)
    assert len({nonces.give(each)[0] for each in (second, first, second)}) == 3


def test_a_stream_is_never_given_a_nonce_that_an_earlier_one_may_have_had() -> None:
    shared = SharedMessage(BODY)
    before = {Nonces().give(shared)[0] for _ in range(3)}
    nonce, message = Nonces().give(shared)
    assert nonce not in before
    assert nonce_of(message) == nonce != shared.nonce


def test_what_a_client_repeats_from_an_earlier_stream_answers_nothing() -> None:
    world = World(ResourceType.ASSIGNMENT, {"a": 1})
    nonce = ""
    for _ in range(3):
        sotw, delta = (make(world.resource_type, Nonces()) for make in (sotw_subscription, DeltaSubscription))
        sotw.advance(world.resources)
        delta.advance(world.resources)
        sotw.receive(SotwRequest(names=("a",), nonce=nonce))
        delta.receive(DeltaRequest(subscribe=("a",), nonce=nonce))
        sent, others = sotw.respond(), delta.respond()
        assert sent is not None
        assert others is not None
        assert sotw.receive(SotwRequest(names=("a",), nonce=nonce, version="whatever")) is None
        assert delta.receive(DeltaRequest(nonce=nonce)) is None
        nonce = sent.nonce


def test_a_push_is_the_same_bytes_for_all_streams_and_so_is_its_answer() -> None:
    world = World(ResourceType.ASSIGNMENT, {"a": 1})
    streams = [sotw_subscription(world.resource_type, Nonces()) for _ in range(3)]
    for stream in streams:
        stream.advance(world.resources)
        stream.receive(SotwRequest(names=("a",)))
        first = stream.respond()
        assert first is not None
        response = discovery_pb2.DiscoveryResponse.FromString(first.message)
        stream.receive(SotwRequest(names=("a",), nonce=response.nonce, version=response.version_info))
    world.change(a=2)
    pushed = []
    for stream in streams:
        stream.advance(world.resources)
        push = stream.respond()
        assert push is not None
        pushed.append(push.message)
    assert all(each is pushed[0] for each in pushed)


def test_a_short_request_is_read_once_and_a_long_one_not_kept() -> None:
    short = discovery_pb2.DiscoveryRequest(resource_names=["web"], response_nonce="1").SerializeToString()
    assert read_sotw(short) is read_sotw(bytes(bytearray(short)))
    long = discovery_pb2.DiscoveryRequest(resource_names=["web"] * 1000).SerializeToString()
    assert read_sotw(long) == read_sotw(long)
    assert read_sotw(long) is not read_sotw(long)
    delta = discovery_pb2.DeltaDiscoveryRequest(response_nonce="1").SerializeToString()
    assert read_delta(delta) is read_delta(bytes(bytearray(delta)))
    assert read_delta(delta).nonce == "1"
