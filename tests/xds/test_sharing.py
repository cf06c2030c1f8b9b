"""What is made once for all streams that are due the same: each is sent what it would be sent if it were alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore.xds.delta import DeltaRequest, DeltaSubscription
from lbcore.xds.nonces import Nonces
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.sotw import SotwRequest, sotw_subscription
from lbcore.xds.subscription import Subscription
from tests.xds.worlds import World

STREAMS = 3
NAMES = ["a", "b", "c"]
names = st.sampled_from([("a",), ("b",), ("a", "b"), ("a", "b", "c"), ("*", "a"), ()])  # few: they are to meet
contents = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3))
streams = st.integers(0, STREAMS - 1)
asks = st.tuples(st.just("ask"), streams, names, st.just(()) | names)
answers = st.tuples(st.just("answer"), streams, st.sampled_from([None, None, "refused"]))
between_changes = st.lists(asks | answers, min_size=4, max_size=10)
steps = st.lists(st.tuples(contents, between_changes), min_size=1, max_size=4).map(
    lambda rounds: [step for now, others in rounds for step in (*others, ("change", now))]
)
Protocol = Callable[[ResourceType, Nonces], Subscription[Any]]


class Client:
    """One stream, which asks and answers as it is told to; `sent` is what it was sent last, without its nonce."""

    def __init__(self, subscribe: Protocol, resource_type: ResourceType, world: World) -> None:
        self.world = world
        self.delta = subscribe is DeltaSubscription
        self.subscription = subscribe(resource_type, Nonces())
        self.subscription.advance(world.resources)
        self.names: tuple[str, ...] = ()
        self.nonce = ""
        self.sent = b""

    def ask(self, more: tuple[str, ...], less: tuple[str, ...]) -> None:
        self.names = more
        if self.delta:
            self.subscription.receive(DeltaRequest(subscribe=more, unsubscribe=less))
        else:
            self.subscription.receive(SotwRequest(names=more, nonce=self.nonce))

    def answer(self, error: str | None) -> None:
        if self.delta:
            self.subscription.receive(DeltaRequest(nonce=self.nonce, error=error))
        else:
            version = self.sent[2 : 2 + self.sent[1]].decode() if self.sent and error is None else ""
            self.subscription.receive(SotwRequest(names=self.names, nonce=self.nonce, version=version, error=error))

    def read(self) -> list[tuple[bytes, frozenset[str]]]:
        """All that is due."""
        read = []
        while (response := self.subscription.respond()) is not None:
            self.nonce = response.nonce
            field = bytes((5 << 3 | 2, len(self.nonce))) + self.nonce.encode()
            assert response.message.endswith(field)
            self.sent = response.message[: -len(field)]
            read.append((self.sent, frozenset(response.changed)))
        return read


@pytest.mark.parametrize("resource_type", [ResourceType.CLUSTER, ResourceType.ASSIGNMENT], ids=lambda each: each.name)
@pytest.mark.parametrize("subscribe", [sotw_subscription, DeltaSubscription], ids=["sotw", "delta"])
@settings(max_examples=150)
@given(first=st.fixed_dictionaries(dict.fromkeys(NAMES, st.integers(1, 3))), steps=steps)
def test_each_of_many_streams_is_sent_what_it_would_be_sent_alone(
    subscribe: Protocol, resource_type: ResourceType, first: dict[str, int], steps: list[tuple[Any, ...]]
) -> None:
    shared = World(resource_type, first)
    alone = [World(resource_type, first) for _ in range(STREAMS)]
    together = [Client(subscribe, resource_type, shared) for _ in range(STREAMS)]
    apart = [Client(subscribe, resource_type, world) for world in alone]
    for action, *values in steps:
        if action == "change":
            for world in (shared, *alone):
                world.become(values[0])
            for client in (*together, *apart):
                client.subscription.advance(client.world.resources)
        else:
            for clients in (together, apart):
                getattr(clients[values[0]], action)(*values[1:])
        assert [client.read() for client in together] == [client.read() for client in apart]
        for one, twin in zip(together, apart, strict=True):
            assert sorted(one.subscription.statuses()) == sorted(twin.subscription.statuses())
