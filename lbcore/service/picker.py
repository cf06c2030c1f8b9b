"""`lbcore.v1.Picker`: the engine's picks over gRPC. The service's comments in picker.proto say what each method does.

Requests are answered from `Clusters` and leases kept in a `LeaseTable`; what a request asks for is checked in full
before anything is done, so a refused one has changed nothing.
"""

from __future__ import annotations

from typing import TypedDict

import grpc

from lbcore._core import Lease
from lbcore.address import canonical_address
from lbcore.directory import DirectorySnapshot, ServiceSnapshot
from lbcore.errors import InvalidSetting
from lbcore.model import LoadReport
from lbcore.service.clusters import Clusters, ServedCluster, View
from lbcore.service.leases import LeaseTable
from lbcore.service.methods import Stream, StreamSet, unary
from lbcore.service.permission import sees
from lbcore.service.pick_stream import serve_pick_stream
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.wire import duration, endpoint_message, explanation_message, load_value, parse, seconds
from lbcore.validation import whole

__all__ = ["SERVICE_NAME", "Picker"]

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Picker"].full_name

MAX_COUNT = 1024  # endpoints of one answer
MIN_TTL, DEFAULT_TTL, MAX_TTL = 0.001, 30.0, 3600.0  # seconds
MAX_LATENCY = 86400.0  # seconds

_GRPC_STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class _Ending(TypedDict, total=False):
    """The arguments of `Lease.done`."""

    ok: bool
    status: int | str
    latency: float
    load: LoadReport


class Picker:
    """The methods of the picker service."""

    def __init__(self, clusters: Clusters, leases: LeaseTable[Lease]) -> None:
        self.streams = StreamSet()
        self._clusters = clusters
        self._leases = leases

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service."""
        handlers = {
            "Pick": unary(self.pick),
            "Report": unary(self.report),
            "Explain": unary(self.explain),
            "PickStream": self.streams.stream_stream(lambda stream: serve_pick_stream(self._clusters, stream)),
            "ListEndpoints": unary(self.list_endpoints),
            "WatchEndpoints": self.streams.unary_stream(self.watch_endpoints),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))

    def pick(self, data: bytes) -> bytes:
        """Answers a `PickRequest`. Raises `LbError`s."""
        request = parse(pb.PickRequest, data)
        served = self._clusters.get(request.service)
        view = served.view(request)
        key = _key(request)
        if not request.HasField("lease") and request.count <= 1:
            endpoint = view.pick(key, _excluded(request))
            served.picks += 1
            return served.answer(endpoint)
        return self._pick_at_length(request, served, view, key)

    def _pick_at_length(
        self, request: pb.PickRequest, served: ServedCluster, view: View, key: str | bytes | int | None
    ) -> bytes:
        count = request.count or 1
        if count > MAX_COUNT:
            raise InvalidSetting(f"count {count}: expected at most {MAX_COUNT}")
        response = pb.PickResponse(table_version=served.version)
        excluded = _excluded(request)
        if not request.HasField("lease"):
            endpoints = view.rank(key, count, excluded)
        else:
            ttl = _ttl(request.lease)
            self._leases.make_room()
            lease = view.acquire(key, excluded)
            endpoints = [lease.endpoint]
            if count > 1:
                ranked = view.rank(key, count, excluded)
                endpoints += [each for each in ranked if each.address != lease.endpoint.address][: count - 1]
            response.lease.id = self._leases.grant(lease, ttl)
            response.lease.ttl.CopyFrom(duration(ttl))
        served.picks += 1
        response.endpoints.extend(map(endpoint_message, endpoints))
        return response.SerializeToString()

    def explain(self, data: bytes) -> bytes:
        """Answers an `ExplainRequest`. Raises `LbError`s."""
        request = parse(pb.ExplainRequest, data)
        served = self._clusters.get(request.service)
        response = explanation_message(served.view(request).explain(_key(request)))
        response.table_version = served.version
        return response.SerializeToString()

    def report(self, data: bytes) -> bytes:
        """Answers a `ReportRequest`: ends the leases it names. Raises `InvalidSetting`, and then none has ended."""
        outcomes = parse(pb.ReportRequest, data).outcomes
        checked = [_checked(outcome, f"outcomes[{position}]") for position, outcome in enumerate(outcomes)]
        response = pb.ReportResponse()
        for lease_id, ending in checked:
            lease = self._leases.take(lease_id)
            if lease is None:
                response.unknown_lease_ids.append(lease_id)
            else:
                lease.done(**ending)
        return response.SerializeToString()

    def list_endpoints(self, data: bytes) -> bytes:
        """Answers a `ListEndpointsRequest`. Raises `LbError`s."""
        name = parse(pb.ListEndpointsRequest, data).service
        chosen = [self._clusters.get(name)] if name else self._clusters.visible()
        response = pb.ListEndpointsResponse(
            services=[each.status() for each in chosen], stale=self._clusters.directory.current.stale
        )
        return response.SerializeToString()

    async def watch_endpoints(self, data: bytes, stream: Stream) -> None:
        """Writes a `WatchEndpointsResponse` now and after each change that concerns the request. Raises `LbError`s."""
        name = parse(pb.WatchEndpointsRequest, data).service
        if name:
            self._clusters.get(name)
        known: dict[str, ServiceSnapshot] = {}
        seen: DirectorySnapshot | None = None
        async for snapshot in self._clusters.directory.watch():
            self._clusters.apply(snapshot)  # this watch may have been woken before the clusters' own
            services = snapshot.services.items()
            now = {each: it for each, it in services if (not name or each == name) and sees(each, "pick")}
            changed = [self._clusters.get(each) for each in sorted(now) if known.get(each) is not now[each]]
            removed = sorted(known.keys() - now.keys())
            if seen is None or changed or removed or snapshot.stale != seen.stale:
                response = pb.WatchEndpointsResponse(
                    services=[each.status() for each in changed], removed=removed, stale=snapshot.stale
                )
                await stream.write(response.SerializeToString())
            known, seen = now, snapshot


def _excluded(request: pb.PickRequest) -> list[str] | None:
    """In canonical form, as the endpoints' addresses are."""
    if not request.exclude:
        return None
    return [canonical_address(address, f"exclude[{index}]") for index, address in enumerate(request.exclude)]


def _key(request: pb.PickRequest | pb.ExplainRequest) -> str | bytes | int | None:
    form = request.WhichOneof("affinity")
    if form is None:
        return None
    key: str | bytes | int = getattr(request, form)
    return key


def _ttl(lease: pb.LeaseRequest) -> float:
    if not lease.HasField("ttl"):
        return DEFAULT_TTL
    ttl = seconds(lease.ttl)
    if not MIN_TTL <= ttl <= MAX_TTL:
        raise InvalidSetting(f"lease.ttl {ttl:g}s: expected {MIN_TTL:g}s to {MAX_TTL:g}s")
    return ttl


def _checked(outcome: pb.Outcome, where: str) -> tuple[int, _Ending]:
    """An outcome as a lease's id and the arguments of `Lease.done`. Raises `InvalidSetting` naming the field."""
    ending: _Ending = {"ok": outcome.ok if outcome.HasField("ok") else True}
    form = outcome.WhichOneof("status")
    if form == "http_status":
        ending["status"] = whole(outcome.http_status, f"{where}.http_status", 100, 599)
    elif form == "grpc_status":
        number = whole(outcome.grpc_status, f"{where}.grpc_status", 0, max(_GRPC_STATUS_NAMES))
        ending["status"] = _GRPC_STATUS_NAMES[number]
    if outcome.HasField("latency"):
        ending["latency"] = seconds(outcome.latency)
        if not 0 <= ending["latency"] <= MAX_LATENCY:
            raise InvalidSetting(f"{where}.latency {ending['latency']:g}s: expected 0s to {MAX_LATENCY:g}s")
    if outcome.HasField("load"):
        try:
            ending["load"] = load_value(outcome.load)
        except InvalidSetting as error:
            raise InvalidSetting(f"{where}.load.{error}") from None
    return outcome.lease_id, ending
