"""`Picker.PickStream`: many picks of one service, packed, at the rate of the engine rather than of messages.

The invariant: an answer's indices were computed on exactly the endpoint table whose version it bears, and the client
has had that table, because it is in the first answer and in each one after a change.
"""

from __future__ import annotations

import numpy as np
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs lacks it

from lbcore.errors import InvalidSetting
from lbcore.service.clusters import Clusters, Hashes
from lbcore.service.methods import Stream
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.wire import parse

__all__ = ["MAX_PICKS", "serve_pick_stream"]

MAX_PICKS = 524_288  # a message: as many hashes as fit grpc's default limit of 4 MiB

_HASH_BYTES = 8


async def serve_pick_stream(clusters: Clusters, stream: Stream) -> None:
    """Answers each message in order until the client has sent its last. Raises `LbError`s."""
    # Read and write rather than an async generator: a third fewer turns of the event loop for each message.
    read, write = stream.read, stream.write
    service = ""
    first: pb.PickStreamRequest | None = None
    sent_version: str | None = None
    while (data := await read()) is not EOF:
        request = parse(pb.PickStreamRequest, data)
        service = _same_service(service, request.service)
        first = first or _first(request)
        served = clusters.get(service)
        version = served.version
        picked = served.pick_many(served.view(first), _keys(request))
        served.picks += len(picked)
        response = pb.PickStreamResponse(indices=picked.astype("<i4", copy=False).tobytes(), table_version=version)
        if version != sent_version:
            response.table.CopyFrom(served.table)
            sent_version = version
        await write(response.SerializeToString())


def _same_service(before: str, named: str) -> str:
    if not (named or before):
        raise InvalidSetting("service '': expected a service's name in the first message")
    if before and named and named != before:
        raise InvalidSetting(f"service {named[:100]!r}: expected {before!r} as before; open another stream for another")
    return before or named


def _first(request: pb.PickStreamRequest) -> pb.PickStreamRequest:
    """What holds for the whole stream."""
    subset = request.subset if request.HasField("subset") else None
    return pb.PickStreamRequest(subset=subset, local_locality=request.local_locality)


def _keys(request: pb.PickStreamRequest) -> Hashes | int:
    """What `Cluster.pick_many` is to pick for."""
    hashes = request.hashes
    if not hashes:
        if request.count > MAX_PICKS:
            raise InvalidSetting(f"count {request.count}: expected at most {MAX_PICKS}")
        return request.count
    if request.count:
        raise InvalidSetting(f"count {request.count}: expected none beside hashes")
    if len(hashes) % _HASH_BYTES:
        raise InvalidSetting(f"hashes: {len(hashes)} bytes given, expected a multiple of {_HASH_BYTES}")
    return np.frombuffer(hashes, dtype="<u8").astype(np.uint64, copy=False)
