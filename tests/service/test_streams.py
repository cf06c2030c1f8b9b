"""The picker's streams over a real gRPC connection: PickStream, WatchEndpoints, and how a drain ends them."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import suppress

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore import Cluster, Endpoint, Health, Maglev
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.proto.picker_pb2_grpc import PickerStub
from lbcore.snapshot import ServiceSnapshot
from tests.harness.picker_server import PickerServer

StartPicker = Callable[..., PickerServer]
StubOf = Callable[[PickerServer], PickerStub]

TEN = tuple(Endpoint(f"10.0.0.{number}:80") for number in range(1, 11))
WEB = ServiceSnapshot(name="web", endpoints=TEN, policy=Maglev())
HASHES = np.arange(1, 5000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


class Conversation:
    """A pick stream, one message at a time."""

    def __init__(self, stub: PickerStub) -> None:
        self._messages: queue.SimpleQueue[pb.PickStreamRequest | None] = queue.SimpleQueue()
        self._answers: Iterator[pb.PickStreamResponse] = stub.PickStream(iter(self._messages.get, None), timeout=30)

    def ask(self, message: pb.PickStreamRequest) -> pb.PickStreamResponse:
        self._messages.put(message)
        return next(self._answers)

    def end(self) -> list[pb.PickStreamResponse]:
        """Closes the client's half and returns what still comes."""
        self._messages.put(None)
        return list(self._answers)

    def refusal(self, message: pb.PickStreamRequest) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self.ask(message)
        return caught.value.code(), caught.value.details()


@pytest.fixture
def conversation(start_picker: StartPicker, stub_of: StubOf) -> Iterator[Conversation]:
    open_conversation = Conversation(stub_of(start_picker(WEB)))
    yield open_conversation
    open_conversation._messages.put(None)


def packed(hashes: np.ndarray) -> bytes:
    return hashes.astype("<u8").tobytes()


def test_packed_hashes_get_the_indices_that_an_embedded_cluster_gives(conversation: Conversation) -> None:
    answer = conversation.ask(pb.PickStreamRequest(service="web", hashes=packed(HASHES)))
    expected = Cluster("web", TEN, policy=Maglev()).pick_many(HASHES)
    np.testing.assert_array_equal(np.frombuffer(answer.indices, "<i4"), expected)


def test_indices_refer_to_the_table_of_the_first_answer(conversation: Conversation) -> None:
    answer = conversation.ask(pb.PickStreamRequest(service="web"))
    assert [each.address for each in answer.table.endpoints] == [each.address for each in TEN]
    assert answer.table.version == answer.table_version == WEB.version


def test_an_unchanged_table_is_told_once(conversation: Conversation) -> None:
    conversation.ask(pb.PickStreamRequest(service="web", count=1))
    answer = conversation.ask(pb.PickStreamRequest(count=1))
    assert (answer.HasField("table"), answer.table_version) == (False, WEB.version)


def test_a_changed_table_comes_with_the_next_answer(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(WEB)
    conversation = Conversation(stub_of(server))
    conversation.ask(pb.PickStreamRequest(service="web", count=1))
    changed = ServiceSnapshot(name="web", endpoints=TEN[:2], policy=Maglev())
    server.publish(changed)
    answer = conversation.ask(pb.PickStreamRequest(hashes=packed(HASHES)))
    assert (answer.table_version, len(answer.table.endpoints)) == (changed.version, 2)
    assert set(np.frombuffer(answer.indices, "<i4")) == {0, 1}
    conversation.end()


def test_picks_without_keys_come_by_number(conversation: Conversation) -> None:
    answer = conversation.ask(pb.PickStreamRequest(service="web", count=7))
    assert len(np.frombuffer(answer.indices, "<i4")) == 7


def test_without_a_usable_endpoint_every_index_is_minus_one(start_picker: StartPicker, stub_of: StubOf) -> None:
    down = tuple(Endpoint(each.address, health=Health.DRAINING) for each in TEN)
    server = start_picker(ServiceSnapshot(name="web", endpoints=down, panic_threshold=0))
    conversation = Conversation(stub_of(server))
    answer = conversation.ask(pb.PickStreamRequest(service="web", count=3))
    assert list(np.frombuffer(answer.indices, "<i4")) == [-1, -1, -1]
    conversation.end()


def test_the_stream_ends_when_the_client_has_sent_its_last(conversation: Conversation) -> None:
    conversation.ask(pb.PickStreamRequest(service="web", count=1))
    assert conversation.end() == []


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (pb.PickStreamRequest(count=1), grpc.StatusCode.INVALID_ARGUMENT, "service ''"),
        (pb.PickStreamRequest(service="web", hashes=b"1234567"), grpc.StatusCode.INVALID_ARGUMENT, "hashes: 7 bytes"),
        (pb.PickStreamRequest(service="web", hashes=b"8" * 8, count=1), grpc.StatusCode.INVALID_ARGUMENT, "count 1"),
        (pb.PickStreamRequest(service="web", count=524_289), grpc.StatusCode.INVALID_ARGUMENT, "count 524289"),
        (pb.PickStreamRequest(service="wbe"), grpc.StatusCode.NOT_FOUND, "near to it: web"),
    ],
    ids=["no service", "torn hash", "both", "too many", "unknown service"],
)
def test_a_message_with_a_mistake_ends_the_stream_naming_it(
    conversation: Conversation, message: pb.PickStreamRequest, code: grpc.StatusCode, words: str
) -> None:
    given_code, details = conversation.refusal(message)
    assert given_code is code
    assert words in details


def test_a_second_service_on_a_stream_is_refused(conversation: Conversation) -> None:
    conversation.ask(pb.PickStreamRequest(service="web", count=1))
    code, details = conversation.refusal(pb.PickStreamRequest(service="api", count=1))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "service 'api': expected 'web'" in details


def test_a_service_removed_under_way_is_not_found(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(WEB)
    conversation = Conversation(stub_of(server))
    conversation.ask(pb.PickStreamRequest(service="web", count=1))
    server.publish()
    assert conversation.refusal(pb.PickStreamRequest(count=1))[0] is grpc.StatusCode.NOT_FOUND


def test_any_bytes_on_a_stream_get_a_documented_answer(start_picker: StartPicker) -> None:
    server = start_picker(WEB)
    documented = {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OK,
        grpc.StatusCode.CANCELLED,  # by this test, after an answer
    }
    with grpc.insecure_channel(server.address) as channel:

        @settings(max_examples=200, deadline=None)
        @given(data=st.binary(max_size=60))
        def answers(data: bytes) -> None:
            for call in (
                lambda: channel.stream_stream("/lbcore.v1.Picker/PickStream")(iter([data]), timeout=30),
                lambda: channel.unary_stream("/lbcore.v1.Picker/WatchEndpoints")(data, timeout=30),
            ):
                answer = call()
                with suppress(grpc.RpcError):
                    next(answer, None)
                    answer.cancel()
                assert answer.code() in documented

        answers()


def test_a_watch_tells_all_and_then_what_changes(start_picker: StartPicker, stub_of: StubOf) -> None:
    web, api = ServiceSnapshot(name="web", endpoints=TEN[:1]), ServiceSnapshot(name="api")
    server = start_picker(web, api)
    updates = stub_of(server).WatchEndpoints(pb.WatchEndpointsRequest(), timeout=30)
    assert [service.name for service in next(updates).services] == ["api", "web"]
    server.publish(ServiceSnapshot(name="web", endpoints=TEN[:2]), api)
    changed = next(updates)
    assert [(service.name, len(service.endpoints)) for service in changed.services] == [("web", 2)]
    server.publish(api)
    assert list(next(updates).removed) == ["web"]


def test_a_watch_of_one_service_is_silent_about_others(start_picker: StartPicker, stub_of: StubOf) -> None:
    web = ServiceSnapshot(name="web", endpoints=TEN[:1])
    server = start_picker(web, ServiceSnapshot(name="api"))
    updates = stub_of(server).WatchEndpoints(pb.WatchEndpointsRequest(service="web"), timeout=30)
    next(updates)
    server.publish(web, ServiceSnapshot(name="api", endpoints=TEN[:1]))
    server.publish(ServiceSnapshot(name="web", endpoints=TEN[:2]))
    assert [len(service.endpoints) for service in next(updates).services] == [2]


def test_a_watch_of_an_unknown_service_is_not_found(start_picker: StartPicker, stub_of: StubOf) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(stub_of(start_picker(WEB)).WatchEndpoints(pb.WatchEndpointsRequest(service="api"), timeout=30))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_watch_tells_that_a_source_went_stale(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(ServiceSnapshot(name="web"))
    updates = stub_of(server).WatchEndpoints(pb.WatchEndpointsRequest(), timeout=30)
    next(updates)
    server.call(lambda: server.directory.mark_stale("test", "the disk is gone"))
    update = next(updates)
    assert (list(update.services), dict(update.stale)) == ([], {"test": "the disk is gone"})


def test_a_drain_ends_a_watch_and_tells_it_to_go_elsewhere(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(WEB)
    updates = stub_of(server).WatchEndpoints(pb.WatchEndpointsRequest(), timeout=30)
    next(updates)
    server.drain()
    with pytest.raises(grpc.RpcError) as caught:
        next(updates)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert ("lbcore-reason", "not-ready") in caught.value.trailing_metadata()


def test_a_drain_ends_an_idle_pick_stream(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(WEB)
    conversation = Conversation(stub_of(server))
    conversation.ask(pb.PickStreamRequest(service="web", count=1))
    server.drain()
    assert conversation.refusal(pb.PickStreamRequest(count=1))[0] is grpc.StatusCode.UNAVAILABLE
