"""The picker service over gRPC: a pick beside an empty unary method of the same server, a batch beside a single pick.

Server and client are processes of their own; one client waits for each answer before it asks again.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest

from bench.conftest import Versus
from bench.loop import Loop
from bench.picker_service import EMPTY
from lbcore.client import PickerClient
from lbcore.service.proto import picker_pb2 as pb

CALLS = 300  # in a round
UNDER_WAY = 4  # messages of a pipeline
PICKER = "/lbcore.v1.Picker/"

Unary = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, "-m", "bench.picker_service"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"127.0.0.1:{int(server.stdout.readline())}"
        server.communicate(timeout=10)


@pytest.fixture(scope="module")
def unary(address: str) -> Iterator[Callable[[str], Unary]]:
    with grpc.insecure_channel(address) as channel:
        yield channel.unary_unary


def calls(method: Unary, request: bytes, count: int = CALLS) -> Loop:
    return Loop("method(request)", {"method": method, "request": request}, count)


class Pipeline:
    """One pick stream that keeps a few messages under way, as a client with a queue of requests does."""

    def __init__(self, channel: grpc.Channel, request: bytes) -> None:
        self._request = request
        self._places = threading.Semaphore(0)
        self._answers = channel.stream_stream(f"{PICKER}PickStream")(self._requests())
        self.exchange(1)  # the first answer bears the endpoint table

    def _requests(self) -> Iterator[bytes]:
        while True:
            self._places.acquire()
            yield self._request

    def exchange(self, messages: int) -> None:
        """Sends so many messages, at most `UNDER_WAY` ahead of the answers."""
        for number in range(messages):
            for _ in range(min(UNDER_WAY, messages) if number == 0 else number + UNDER_WAY <= messages):
                self._places.release()
            next(self._answers)

    def close(self) -> None:
        self._answers.cancel()


def test_pick(versus: Versus, unary: Callable[[str], Unary]) -> None:
    request = pb.PickRequest(service="web", key="user-1").SerializeToString()
    versus(
        "Pick, one key",
        calls(unary(f"{PICKER}Pick"), request),
        "empty unary method",
        calls(unary(f"/{EMPTY}/Nothing"), request),
        rounds=20,
        goal=1.15,
    )


@pytest.mark.parametrize("batch", [4096, 65536])
def test_pick_stream(versus: Versus, unary: Callable[[str], Unary], address: str, batch: int) -> None:
    hashes = np.random.default_rng(9).integers(0, 2**64, batch, dtype=np.uint64)
    with PickerClient(address) as client:
        versus(
            f"PickStream, {batch} hashes a message, a pick",
            Loop("pick_many('web', hashes)", {"pick_many": client.pick_many, "hashes": hashes}, 20, calls=batch),
            "empty unary method",
            calls(unary(f"/{EMPTY}/Nothing"), b"", 100),
            rounds=20,
            goal=1 / 1000,
        )


@pytest.mark.parametrize(("batch", "goal"), [(4096, 1 / 15e6), (65536, 1 / 50e6)])
def test_pick_stream_in_a_pipeline(
    versus: Versus, unary: Callable[[str], Unary], address: str, batch: int, goal: float
) -> None:
    hashes = np.random.default_rng(9).integers(0, 2**64, batch, dtype=np.uint64).tobytes()
    request = pb.PickStreamRequest(service="web", hashes=hashes).SerializeToString()
    with grpc.insecure_channel(address) as channel:
        pipeline = Pipeline(channel, request)
        versus(
            f"PickStream, {batch} hashes a message, {UNDER_WAY} under way, a pick",
            Loop("exchange(40)", {"exchange": pipeline.exchange}, 1, calls=40 * batch),
            "empty unary method",
            calls(unary(f"/{EMPTY}/Nothing"), b"", 100),
            rounds=20,
            limit=goal,
        )
        pipeline.close()
