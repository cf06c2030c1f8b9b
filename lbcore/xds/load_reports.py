"""LRS: clients say how many requests they sent where, and how they ended (`envoy.service.load_stats.v3`).

Reports are taken of services and localities that exist, so that no client can invent names without end.
Source: Envoy lrs.proto, load_report.proto; gRFC A27.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from envoy.config.endpoint.v3 import load_report_pb2
from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf.message import DecodeError

from lbcore.access import Permit
from lbcore.delivery import XdsDelivery
from lbcore.directory import Directory
from lbcore.errors import NotPermitted
from lbcore.loads import LocalityCounts
from lbcore.model import Locality
from lbcore.xds.messages import duration
from lbcore.xds.observer import XdsObserver
from lbcore.xds.stream import Access, Context

__all__ = ["SERVICE", "LoadReportService"]

SERVICE = "envoy.service.load_stats.v3.LoadReportingService"
_METHOD = "StreamLoadStats"
_ALL_CLUSTERS = "envoy.lrs.supports_send_all_clusters"
_NOWHERE = Locality()


@dataclass(eq=False, slots=True)
class _Reporter:
    """A stream of reports; `ending` is set where it is ended from here."""

    context: Context
    permit: Permit | None
    ending: tuple[grpc.StatusCode, str] | None = None

    def sees(self, service: str) -> bool:
        return self.permit is None or self.permit.sees(service)


class LoadReportService:
    """Takes load reports into the Directory's `loads`.

    Arguments:
        admit: takes the stream, or ends it; returns what its client may see, None for everything.
        settings: how it is to deliver, at this moment.
    """

    def __init__(
        self,
        directory: Directory,
        observer: XdsObserver,
        admit: Callable[[str, Context], Awaitable[Permit | None]],
        settings: Callable[[], XdsDelivery],
    ) -> None:
        self._directory = directory
        self._observer = observer
        self._admit = admit
        self._settings = settings
        self._streams: dict[asyncio.Task[Any], _Reporter] = {}

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service; to be called before the server starts."""
        handlers = {_METHOD: grpc.stream_stream_rpc_method_handler(self._serve)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def drain(self) -> None:
        """Ends every stream: clients report elsewhere."""
        for task, reporter in self._streams.items():
            reporter.ending = grpc.StatusCode.UNAVAILABLE, "draining: this server is about to stop"
            task.cancel()

    def look_again(self, access: Access) -> None:
        """Ends the streams of clients that may not report any more, or that are to see something else."""
        for task, reporter in self._streams.items():
            try:
                if access(reporter.context) == reporter.permit:
                    continue
                reporter.ending = grpc.StatusCode.UNAVAILABLE, "what is granted has changed: connect again"
            except NotPermitted as refused:
                reporter.ending = grpc.StatusCode.PERMISSION_DENIED, str(refused)
            task.cancel()

    @property
    def stream_count(self) -> int:
        """How many clients report."""
        return len(self._streams)

    async def _serve(self, requests: AsyncIterator[bytes], context: Context) -> None:
        permit = await self._admit(_METHOD, context)
        task = asyncio.current_task()
        assert task is not None
        reporter = self._streams[task] = _Reporter(context, permit)
        self._observer.stream_opened(_METHOD)
        try:
            await self._follow(reporter, requests)
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a LoadStatsRequest: {error}")
        except asyncio.CancelledError:
            if reporter.ending is None:
                raise
            await context.abort(*reporter.ending)
        finally:
            self._directory.loads.forget(reporter)
            del self._streams[task]
            self._observer.stream_closed(_METHOD)

    async def _follow(self, reporter: _Reporter, requests: AsyncIterator[bytes]) -> None:
        wanted: lrs_pb2.LoadStatsResponse | None = None
        all_clusters = False
        async for message in requests:
            request = lrs_pb2.LoadStatsRequest.FromString(message)
            if wanted is None:
                all_clusters = _ALL_CLUSTERS in request.node.client_features
            self._take(reporter, request.cluster_stats)
            asked = self._wanted(all_clusters, reporter)
            if asked != wanted:  # a client that cannot report of all is told of services that come later
                wanted = asked
                await reporter.context.write(wanted.SerializeToString())

    def _wanted(self, all_clusters: bool, reporter: _Reporter) -> lrs_pb2.LoadStatsResponse:
        return lrs_pb2.LoadStatsResponse(
            send_all_clusters=all_clusters,
            clusters=() if all_clusters else sorted(filter(reporter.sees, self._directory.current.services)),
            load_reporting_interval=duration(self._settings().load_reporting_interval),
        )

    def _take(self, reporter: _Reporter, stats: Iterable[load_report_pb2.ClusterStats]) -> None:
        for cluster in stats:
            service = self._directory.current.services.get(cluster.cluster_name)
            interval = cluster.load_report_interval.ToNanoseconds() / 1e9
            if service is None or interval <= 0 or not reporter.sees(service.name):
                continue
            places = {endpoint.locality for endpoint in service.endpoints}
            counts: dict[Locality, LocalityCounts] = {}
            for each in cluster.upstream_locality_stats:
                place = Locality(each.locality.region, each.locality.zone, each.locality.sub_zone)
                place = place if place in places else _NOWHERE
                counts[place] = _added(counts.get(place, LocalityCounts()), each)
            self._directory.loads.report(
                reporter, service.name, interval, counts, dropped=cluster.total_dropped_requests
            )


def _added(known: LocalityCounts, stats: load_report_pb2.UpstreamLocalityStats) -> LocalityCounts:
    """Of one locality there is an entry for each priority."""
    metrics = dict(known.metrics)
    for each in stats.load_metric_stats:
        number, total = metrics.get(each.metric_name, (0, 0.0))
        number += each.num_requests_finished_with_metric
        metrics[each.metric_name] = (number, total + each.total_metric_value)
    return LocalityCounts(
        successes=known.successes + stats.total_successful_requests,
        errors=known.errors + stats.total_error_requests,
        issued=known.issued + stats.total_issued_requests,
        in_progress=known.in_progress + stats.total_requests_in_progress,
        metrics=metrics,
    )
