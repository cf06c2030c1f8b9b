"""Which xDS clients a service has, and how far each is: asked over CSDS (gRFC A40, Envoy csds.proto)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import grpc
from envoy.service.status.v3 import csds_pb2
from envoy.type.matcher.v3 import node_pb2, string_pb2

from lbcore.client.channel import open_channel
from lbcore.client.messages import DEFAULT_TARGET, DEFAULT_TIMEOUT, error_of

__all__ = ["COLUMNS", "NodeType", "fetch_nodes", "node_json", "node_row"]

COLUMNS = ("NODE", "CLIENT", "PEER", "TYPE", "RESOURCES", "VERSION", "STATUS", "SENT", "REFUSED BECAUSE")

_METHOD = "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus"
_WORST_FIRST = ("ERROR", "STALE", "NOT_SENT", "SYNCED")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """One resource type on one stream of one client.

    Fields:
        node, cluster, client, locality: what the client says of itself; `client` is its program and version.
        peer, method: where its stream comes from, and the gRPC method.
        type_url: of the resources.
        resources: how many it is subscribed to, by status: SYNCED, STALE (not answered yet), NOT_SENT, ERROR (refused).
        version: one for all that it was sent: the version of its state of the world.
        sent_at: seconds since 1970 when it was sent something last.
        refused_version, message: of the NACK that it has not made up for; empty if there is none.
    """

    node: str
    cluster: str
    client: str
    locality: str
    peer: str
    method: str
    type_url: str
    resources: dict[str, int]
    version: str
    sent_at: float
    refused_version: str
    message: str

    @property
    def status(self) -> str:
        """The worst status of its resources."""
        return next((each for each in _WORST_FIRST if self.resources.get(each)), "SYNCED")


def fetch_nodes(
    node: str = "",
    target: str = DEFAULT_TARGET,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    credentials: grpc.ChannelCredentials | None = None,
) -> list[NodeType]:
    """Every xDS client of the service at `target`, or the one with this `node.id`. Raises as `PickerClient` does."""
    matchers = [node_pb2.NodeMatcher(node_id=string_pb2.StringMatcher(exact=node))] if node else []
    request = csds_pb2.ClientStatusRequest(node_matchers=matchers)
    with open_channel(target, credentials) as channel:
        ask = channel.stream_stream(
            _METHOD,
            request_serializer=csds_pb2.ClientStatusRequest.SerializeToString,
            response_deserializer=csds_pb2.ClientStatusResponse.FromString,
        )
        try:
            responses = list(ask(iter([request]), timeout=timeout))
        except grpc.RpcError as error:
            raise error_of(error, target) from None
    found = (each for response in responses for config in response.config for each in _types(config))
    return sorted(found, key=lambda each: (each.node, each.peer, each.method, each.type_url))


def node_row(each: NodeType) -> tuple[str, ...]:
    """The cells of a table, under `COLUMNS`."""
    age = time_of_day(each.sent_at)
    counts = str(sum(each.resources.values()))
    kind = each.type_url.rpartition(".")[2]
    return (each.node or "-", each.client or "-", each.peer, kind, counts, each.version, each.status, age, each.message)


def node_json(each: NodeType) -> dict[str, object]:
    """The same for scripts."""
    return {**asdict(each), "status": each.status}


def time_of_day(seconds: float) -> str:
    """In UTC, to the second."""
    return f"{int(seconds) // 3600 % 24:02}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}" if seconds else "-"


def _types(config: csds_pb2.ClientConfig) -> Iterator[NodeType]:
    by_type: dict[str, list[csds_pb2.ClientConfig.GenericXdsConfig]] = {}
    for resource in config.generic_xds_configs:
        by_type.setdefault(resource.type_url, []).append(resource)
    method, _, peer = config.client_scope.partition(" ")
    node, place = config.node, config.node.locality
    for type_url, resources in by_type.items() or [("", [])]:
        refused = next((each.error_state for each in resources if each.HasField("error_state")), None)
        names = [csds_pb2.ConfigStatus.Name(each.config_status) for each in resources]
        yield NodeType(
            node=node.id,
            cluster=node.cluster,
            client=f"{node.user_agent_name} {node.user_agent_version}".strip(),
            locality=f"{place.region}/{place.zone}/{place.sub_zone}".rstrip("/"),
            peer=peer,
            method=method,
            type_url=type_url,
            resources=dict(Counter(names)),
            version=_sum(each.version_info for each in resources),
            sent_at=max((each.last_updated.ToNanoseconds() / 1e9 for each in resources), default=0.0),
            refused_version=refused.version_info if refused else "",
            message=refused.details if refused else "",
        )


def _sum(versions: Iterable[str]) -> str:
    """One version for all, as the server itself adds them up for a state of the world."""
    return f"{sum(int(version, 16) for version in versions if version) & (1 << 64) - 1:016x}"
