"""The endpoints of one cluster from an xDS control plane: an ADS client, in the state of the world or incremental.

CDS says whether the cluster exists and what its endpoints are called in EDS; EDS says who they are. A cluster that CDS
no longer has is gone: information of absence. A stream that breaks says nothing: what was known stays, and the next
stream begins with the versions that were accepted. An answer that cannot be used is refused (NACK), and what was there
before stays.
Source: Envoy xds_protocol.rst; gRPC A27, A88.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2

from lbcore.errors import InvalidSetting
from lbcore.membership import Membership
from lbcore.model import Locality
from lbcore.source import Xds
from lbcore.sources.feed import Feed, FeedBroken, Timing
from lbcore.sources.http import MAX_BODY
from lbcore.sources.load_assignment import membership_of
from lbcore.sources.xds_subscription import DeltaSubscription, SotwSubscription, Subscription, Update

__all__ = ["XdsFeed"]

_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
_EOF: Any = getattr(grpc.aio, "EOF")  # noqa: B009 - grpc-stubs lacks it
_AGAIN = 1.0  # seconds before what has been refused is refused again: go-control-plane sends it anew at once, for ever
_QUIET = 5.0  # seconds of silence that mean something: on a resumed stream, that nothing has changed
_OPTIONS = (
    # A channel of its own, which does not wait because another one to the same server has failed.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MAX_BODY),
    # A server that has vanished without a word is noticed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


def _read(field: str, path: str) -> bytes | None:
    """The content of a file; None where none is named. Raises `FeedBroken`."""
    try:
        return Path(path).read_bytes() if path else None
    except (OSError, ValueError) as wrong:
        raise FeedBroken(f"{field} {path}: {wrong}") from None


class XdsFeed(Feed):
    """One cluster of one control plane."""

    def __init__(self, source: Xds, service: str, timing: Timing) -> None:
        self._source = source
        self._timing = timing
        self._cluster = source.cluster or service
        kind = SotwSubscription if source.api_type == "grpc" else DeltaSubscription
        self._clusters: Subscription = kind(cluster_pb2.Cluster)
        self._endpoints: Subscription = kind(endpoint_pb2.ClusterLoadAssignment, () if source.cds else (self._cluster,))
        self._membership: Membership | None = None
        self._refused: set[str] = set()  # types whose last response was refused
        self._exists = False  # the cluster, as far as CDS has said
        self._doubts: dict[str, str] = {}  # by type, why its last response is not used; what came before it is

    async def follow(self) -> AsyncGenerator[Membership | FeedBroken, None]:
        async with self._channel() as channel:
            call = self._stream(channel)
            reading: asyncio.Future[Any] | None = None
            self._doubts.clear()  # what is refused again is in doubt again
            self._refused.clear()
            try:
                for request in self._opening():
                    await call.write(request)
                reading = asyncio.ensure_future(call.read())
                said = self._membership  # what silence means
                while True:
                    if said is not None and await self._silent(reading):
                        self._membership = said
                        yield said
                    if (response := await reading) is _EOF:
                        raise FeedBroken("the server has ended the stream")
                    before = self._membership
                    refused_before = set(self._refused)
                    for request in self._answers(response):
                        if refused_before & self._refused & {response.type_url}:
                            await self._timing.sleep(_AGAIN)
                        await call.write(request)
                    reading = asyncio.ensure_future(call.read())
                    # While one type is in doubt the other goes on.
                    if self._membership is not None and (self._membership is not before or not self._doubts):
                        yield self._membership
                    if self._doubts:
                        yield FeedBroken("; ".join(self._doubts.values()))
                    # Delta does not say when it has listed all clusters: one that is not among them is not there.
                    unknown = self._membership is None and not self._endpoints.names and not self._doubts
                    said = Membership() if unknown else None
            except grpc.aio.AioRpcError as failed:
                raise FeedBroken(f"{failed.code().name}: {failed.details()}") from None
            except asyncio.InvalidStateError:  # what grpc.aio raises at a write to a stream that has just ended
                raise FeedBroken("the stream has ended") from None
            finally:
                call.cancel()
                if reading is not None:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)

    def _channel(self) -> grpc.aio.Channel:
        source = self._source
        if not source.ca_file:
            return grpc.aio.insecure_channel(source.server, _OPTIONS)
        files = (("ca_file", source.ca_file), ("key_file", source.key_file), ("cert_file", source.cert_file))
        credentials = grpc.ssl_channel_credentials(*(_read(field, path) for field, path in files))
        name = (("grpc.ssl_target_name_override", source.server_name),) if source.server_name else ()
        return grpc.aio.secure_channel(source.server, credentials, (*_OPTIONS, *name))

    def _stream(self, channel: grpc.aio.Channel) -> Any:
        request: Any
        response: Any
        if self._source.api_type == "grpc":
            method, request, response = "Stream", discovery_pb2.DiscoveryRequest, discovery_pb2.DiscoveryResponse
        else:
            method, request, response = (
                "Delta",
                discovery_pb2.DeltaDiscoveryRequest,
                discovery_pb2.DeltaDiscoveryResponse,
            )
        open_stream: Any = channel.stream_stream(
            f"{_ADS}{method}AggregatedResources",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return open_stream()

    def _opening(self) -> Iterator[Any]:
        """The first requests on a stream, of which the very first says who asks."""
        wanted = [self._clusters] if self._source.cds else []
        wanted += [self._endpoints] if self._endpoints.names else []
        for index, subscription in enumerate(wanted):
            request = subscription.begin()
            if index == 0:
                request.node.CopyFrom(self._node())
            yield request

    def _node(self) -> base_pb2.Node:
        node = base_pb2.Node(
            id=self._source.node_id,
            cluster=self._source.node_cluster,
            user_agent_name="lbcore",
            user_agent_version=version("lbcore"),
        )
        if self._source.node_metadata:
            node.metadata.update(self._source.node_metadata)
        if (place := self._source.node_locality) != Locality():
            node.locality.CopyFrom(base_pb2.Locality(region=place.region, zone=place.zone, sub_zone=place.sub_zone))
        return node

    async def _silent(self, reading: asyncio.Future[Any]) -> bool:
        """Whether the stream says nothing for a while."""
        sleeping = asyncio.ensure_future(self._timing.sleep(_QUIET))
        try:
            await asyncio.wait({reading, sleeping}, return_when=asyncio.FIRST_COMPLETED)
            return not reading.done()
        finally:
            sleeping.cancel()
            await asyncio.gather(sleeping, return_exceptions=True)

    def _answers(self, response: Any) -> Iterator[Any]:
        """Takes a response over, or refuses it; the requests that say so."""
        subscription, take = {
            self._clusters.type_url: (self._clusters, self._take_cluster),
            self._endpoints.type_url: (self._endpoints, self._take_endpoints),
        }.get(response.type_url, (None, None))
        if subscription is None or take is None:
            return  # nobody has asked for it
        try:
            self._doubts.pop(subscription.type_url, None)
            update = subscription.read(response)
            asked = take(update)
        except InvalidSetting as wrong:
            self._doubts[subscription.type_url] = f"refused: {wrong}"
            self._refused.add(subscription.type_url)
            yield subscription.refuse(response, str(wrong))
        else:
            self._refused.discard(subscription.type_url)
            for name in {self._cluster, *self._endpoints.names} & update.errors.keys():
                self._doubts[subscription.type_url] = f"{name}: {update.errors[name]}"
            yield subscription.accept(response)
            if asked is not None and asked != self._endpoints.names:
                yield self._endpoints.subscribe(*asked)

    def _take_cluster(self, update: Update) -> tuple[str, ...] | None:
        """What to ask EDS for from now on; None: what is asked for already. Raises `InvalidSetting`."""
        cluster: cluster_pb2.Cluster | None = update.resources.get(self._cluster)
        if cluster is None:
            if not update.lacks(self._cluster):
                return None
            if self._exists and self._source.ignore_resource_deletion:  # gRFC A53
                what = f"cluster {self._cluster!r:.200}: gone, which ignore_resource_deletion passes over"
                self._doubts[self._clusters.type_url] = what
                return None
            self._exists = False
            self._membership = Membership()
            return ()
        if cluster.WhichOneof("cluster_discovery_type") == "type" and cluster.type == cluster_pb2.Cluster.EDS:
            self._exists = True
            return (cluster.eds_cluster_config.service_name or cluster.name,)
        if not cluster.HasField("load_assignment"):
            raise InvalidSetting(f"cluster {cluster.name!r:.200}: expected one of type EDS, or with a load_assignment")
        self._membership = membership_of(cluster.load_assignment)
        self._exists = True
        return ()

    def _take_endpoints(self, update: Update) -> None:
        """Raises `InvalidSetting`."""
        for name in self._endpoints.names:
            if (assignment := update.resources.get(name)) is not None:
                self._membership = membership_of(assignment)
            elif update.lacks(name):
                self._membership = Membership()
