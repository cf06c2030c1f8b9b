"""One call of `pick_many` on a pick stream, without the I/O: what to send, what an answer changes, when it is done.

The invariant: the picks that come out all refer to one endpoint table, the newest the stream has told. Where the table
changes under way, what was answered on an older one is asked again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from lbcore._core import hash64
from lbcore.client.messages import WHOLE_SERVICE, View
from lbcore.errors import InvalidSetting, NoEndpointAvailable
from lbcore.model import Endpoint
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.wire import endpoint_value
from lbcore.validation import text, whole

if TYPE_CHECKING:
    import numpy.typing as npt

    Indices: TypeAlias = npt.NDArray[np.int32]
    Hashes: TypeAlias = npt.NDArray[np.uint64]
    Keys: TypeAlias = Hashes | Sequence[str | bytes] | int

__all__ = ["Batch", "Picks", "Table", "stream_key", "stream_requests"]

MAX_KEYS = 2**31 - 1  # a call
_CHUNK = 65_536  # picks a message: large enough that the cost of a message no longer shows
_WINDOW = 4  # messages under way: keeps the server busy while answers travel


@dataclass
class Table:
    """The newest endpoint table that a stream has told."""

    version: str = ""
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True)
class Picks:
    """The answer of `pick_many`: one endpoint for each key, in order.

    Fields:
        indices: int32 indices into `endpoints`; -1 where no endpoint may be picked.
        endpoints: the service's endpoint table.
        version: the table's version.

    Iterating, or `picks[i]`, gives endpoints and raises `NoEndpointAvailable` at a -1; for many picks, work on
    `indices` with numpy instead.
    """

    indices: Indices
    endpoints: tuple[Endpoint, ...]
    version: str

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Endpoint]:
        return (self[position] for position in range(len(self)))

    def __getitem__(self, position: int) -> Endpoint:
        index = self.indices[position]
        if index < 0:
            raise NoEndpointAvailable(f"pick {position}: no endpoint of the service may be picked")
        endpoint: Endpoint = self.endpoints[index]
        return endpoint


@dataclass
class Batch:
    """The state of one call. Send all of `to_send()`, give each answer to `received`, until `done`."""

    requests: list[pb.PickStreamRequest]
    table: Table
    _answers: list[tuple[str, Indices] | None] = field(init=False)
    _waiting: deque[int] = field(init=False)
    _under_way: deque[int] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self._answers = [None] * len(self.requests)
        self._waiting = deque(range(len(self.requests)))

    @property
    def done(self) -> bool:
        return not (self._waiting or self._under_way)

    def to_send(self) -> Iterator[pb.PickStreamRequest]:
        """The messages to send now; they count as sent when they are taken."""
        while self._waiting and len(self._under_way) < _WINDOW:
            position = self._waiting.popleft()
            self._under_way.append(position)
            yield self.requests[position]

    def received(self, response: pb.PickStreamResponse) -> None:
        """Takes the answer to the earliest message that is still unanswered."""
        position = self._under_way.popleft()
        self._answers[position] = (response.table_version, np.frombuffer(response.indices, dtype="<i4"))
        if response.HasField("table"):
            self.table.version = response.table.version
            self.table.endpoints = tuple(map(endpoint_value, response.table.endpoints))
            for other, answer in enumerate(self._answers):
                if answer is not None and answer[0] != self.table.version:
                    self._answers[other] = None
                    self._waiting.append(other)

    def picks(self) -> Picks:
        """The answer, once `done`."""
        indices = np.concatenate([answer[1] for answer in self._answers if answer is not None])
        return Picks(indices.astype(np.int32, copy=False), self.table.endpoints, self.table.version)


def stream_requests(service: str, keys: Keys, view: View = WHOLE_SERVICE) -> list[pb.PickStreamRequest]:
    """The messages that ask for the keys; at least one, so that even no keys at all are told the table.

    Raises `InvalidSetting`.
    """
    if not text(service, "service"):
        raise InvalidSetting("service '': expected a service's name")
    if isinstance(keys, int):
        wanted = whole(keys, "keys", 0, MAX_KEYS)
        starts = range(0, max(wanted, 1), _CHUNK)
        requests = [pb.PickStreamRequest(service=service, count=min(_CHUNK, wanted - start)) for start in starts]
    else:
        hashes = _hashes(keys)
        chunks = [hashes[start : start + _CHUNK].tobytes() for start in range(0, max(len(hashes), 1), _CHUNK)]
        requests = [pb.PickStreamRequest(service=service, hashes=chunk) for chunk in chunks]
    view.set_in(requests[0])
    return requests


def stream_key(requests: Sequence[pb.PickStreamRequest]) -> bytes:
    """What tells apart the streams that a client keeps: the service, and which view of it."""
    first = pb.PickStreamRequest()
    first.CopyFrom(requests[0])
    first.ClearField("hashes")
    first.ClearField("count")
    return first.SerializeToString(deterministic=True)


def _hashes(keys: Hashes | Sequence[str | bytes]) -> Hashes:
    if isinstance(keys, np.ndarray):
        if keys.ndim != 1 or keys.dtype != np.uint64:
            raise InvalidSetting(
                f"keys of {keys.ndim} dimensions and type {keys.dtype}: expected one dimension of uint64"
            )
        return keys.astype("<u8", copy=False)
    if isinstance(keys, str | bytes):
        raise InvalidSetting(f"keys {keys[:100]!r}: expected a sequence of keys; `pick` takes a single one")
    return np.fromiter((hash64(key) for key in keys), dtype="<u8", count=len(keys))
