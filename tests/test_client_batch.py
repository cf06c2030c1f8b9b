"""`Batch`: one call of `pick_many`, without the network."""

from __future__ import annotations

import numpy as np

from lbcore import Endpoint
from lbcore.client.batch import Batch, Table, stream_requests
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.wire import table_message

OLD = (Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:80"))
NEW = (Endpoint("10.0.0.3:80"),)


def answer(
    request: pb.PickStreamRequest, index: int, version: str, table: tuple[Endpoint, ...] = ()
) -> pb.PickStreamResponse:
    """What a server answers whose every pick is `index`."""
    count = request.count or len(request.hashes) // 8
    response = pb.PickStreamResponse(indices=np.full(count, index, "<i4").tobytes(), table_version=version)
    if table:
        response.table.CopyFrom(table_message(version, table))
    return response


def test_a_large_call_is_cut_into_messages_within_the_window() -> None:
    batch = Batch(stream_requests("web", 1_000_000), Table())
    first = list(batch.to_send())
    assert 1 < len(first) < len(batch.requests)
    assert list(batch.to_send()) == []


def test_answers_on_an_older_table_are_asked_again() -> None:
    batch = Batch(stream_requests("web", 150_000), Table())
    first, second, third = batch.to_send()
    batch.received(answer(first, 1, "old", OLD))
    batch.received(answer(second, 0, "new", NEW))
    batch.received(answer(third, 0, "new"))
    assert not batch.done
    (again,) = batch.to_send()
    batch.received(answer(again, 0, "new"))
    picks = batch.picks()
    assert (batch.done, len(picks), set(picks.indices), picks.endpoints) == (True, 150_000, {0}, NEW)


def test_a_table_told_in_an_earlier_call_is_kept() -> None:
    table = Table()
    first = Batch(stream_requests("web", 1), table)
    first.received(answer(next(first.to_send()), 1, "old", OLD))
    second = Batch(stream_requests("web", 1), table)
    second.received(answer(next(second.to_send()), 1, "old"))
    assert second.picks()[0] == OLD[1]
