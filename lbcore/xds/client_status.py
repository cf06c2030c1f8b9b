"""CSDS: which client has what, and what it refused, as `envoy.service.status.v3.ClientStatusDiscoveryService`.

Each stream of a client is one `ClientConfig`, each resource that it is subscribed to one `GenericXdsConfig` in it.
Source: Envoy csds.proto, gRFC A40.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import grpc
import grpc.aio
from envoy.admin.v3 import config_dump_shared_pb2
from envoy.config.core.v3 import base_pb2
from envoy.service.status.v3 import csds_pb2
from envoy.type.matcher.v3 import node_pb2, string_pb2
from google.protobuf import timestamp_pb2

from lbcore.xds.resource_type import ResourceType
from lbcore.xds.status import ClientStatus, ConfigStatus, Refusal, TypeStatus

__all__ = ["SERVICE", "ClientStatusService"]

SERVICE = "envoy.service.status.v3.ClientStatusDiscoveryService"
_MOST_BYTES = 3 << 20  # of one response; clients refuse more than 4 MiB unless told otherwise

Context = grpc.aio.ServicerContext[Any, Any]


class ClientStatusService:
    """Answers CSDS from what `clients` gives: the streams that are open."""

    def __init__(self, clients: Callable[[], Awaitable[Iterable[ClientStatus]]]) -> None:
        self._clients = clients

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service; to be called before the server starts."""
        codec = {
            "request_deserializer": csds_pb2.ClientStatusRequest.FromString,
            "response_serializer": csds_pb2.ClientStatusResponse.SerializeToString,
        }
        handlers = {
            "FetchClientStatus": grpc.unary_unary_rpc_method_handler(self._fetch, **codec),
            "StreamClientStatus": grpc.stream_stream_rpc_method_handler(self._stream, **codec),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def _fetch(self, request: csds_pb2.ClientStatusRequest, context: Context) -> csds_pb2.ClientStatusResponse:
        wanted = await _matcher(request, context)
        return csds_pb2.ClientStatusResponse(config=map(_config, filter(wanted, await self._clients())))

    async def _stream(
        self, requests: AsyncIterator[csds_pb2.ClientStatusRequest], context: Context
    ) -> AsyncIterator[csds_pb2.ClientStatusResponse]:
        """Answers each request with one response or, where that would be too large, with several."""
        async for request in requests:
            wanted = await _matcher(request, context)
            for response in _split(map(_config, filter(wanted, await self._clients()))):
                yield response


def _split(configs: Iterable[csds_pb2.ClientConfig]) -> Iterator[csds_pb2.ClientStatusResponse]:
    response, size = csds_pb2.ClientStatusResponse(), 0
    for config in configs:
        length = config.ByteSize()
        if size and size + length > _MOST_BYTES:
            yield response
            response, size = csds_pb2.ClientStatusResponse(), 0
        response.config.append(config)
        size += length
    yield response


async def _matcher(request: csds_pb2.ClientStatusRequest, context: Context) -> Callable[[ClientStatus], bool]:
    try:
        conditions = [_condition(matcher) for matcher in request.node_matchers]
    except ValueError as wrong:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"node_matchers: {wrong}")
    return lambda client: not conditions or any(condition(client.node.id) for condition in conditions)


def _condition(matcher: node_pb2.NodeMatcher) -> Callable[[str], bool]:
    if matcher.node_metadatas:
        raise ValueError("node_metadatas: not kept here, expected node_id")
    return _text_condition(matcher.node_id)


def _text_condition(matcher: string_pb2.StringMatcher) -> Callable[[str], bool]:
    kind = matcher.WhichOneof("match_pattern")
    fold: Callable[[str], str] = str.lower if matcher.ignore_case else str
    if kind == "safe_regex":
        try:
            pattern = re.compile(matcher.safe_regex.regex)
        except re.error as wrong:
            raise ValueError(f"safe_regex {matcher.safe_regex.regex!r}: {wrong}") from None
        return lambda text: pattern.fullmatch(text) is not None
    if kind not in ("exact", "prefix", "suffix", "contains"):
        raise ValueError("node_id: expected exact, prefix, suffix, contains or safe_regex")
    expected = fold(getattr(matcher, kind))
    tests: dict[str, Callable[[str], bool]] = {
        "exact": lambda text: fold(text) == expected,
        "prefix": lambda text: fold(text).startswith(expected),
        "suffix": lambda text: fold(text).endswith(expected),
        "contains": lambda text: expected in fold(text),
    }
    return tests[kind]


def _config(client: ClientStatus) -> csds_pb2.ClientConfig:
    node = client.node
    place = node.locality
    message = csds_pb2.ClientConfig(
        node=base_pb2.Node(
            id=node.id,
            cluster=node.cluster,
            user_agent_name=node.user_agent_name,
            user_agent_version=node.user_agent_version,
            locality=base_pb2.Locality(region=place.region, zone=place.zone, sub_zone=place.sub_zone),
            client_features=sorted(node.client_features),
        ),
        client_scope=f"{client.method} {client.peer}",
    )
    for resource_type, status in client.types.items():
        message.generic_xds_configs.extend(_resources(resource_type, status))
    return message


def _resources(resource_type: ResourceType, status: TypeStatus) -> Iterator[csds_pb2.ClientConfig.GenericXdsConfig]:
    updated = _timestamp(status.sent_at)
    told = False
    for name, version, state in status.resources.statuses():
        error = _error(status.refusal) if state is ConfigStatus.ERROR and status.refusal else None
        told = told or error is not None
        yield _resource(resource_type, name, version, state, updated, error)
    if status.refusal and not told:  # of what is named in no resource: a removal, say
        yield _resource(resource_type, "", "", ConfigStatus.ERROR, updated, _error(status.refusal))


def _resource(
    resource_type: ResourceType,
    name: str,
    version: str,
    state: ConfigStatus,
    updated: timestamp_pb2.Timestamp,
    error: config_dump_shared_pb2.UpdateFailureState | None,
) -> csds_pb2.ClientConfig.GenericXdsConfig:
    return csds_pb2.ClientConfig.GenericXdsConfig(
        type_url=resource_type.type_url,
        name=name,
        version_info=version,
        last_updated=updated,
        config_status=int(state),
        error_state=error,
    )


def _error(refusal: Refusal) -> config_dump_shared_pb2.UpdateFailureState:
    return config_dump_shared_pb2.UpdateFailureState(
        details=refusal.message, version_info=refusal.version, last_update_attempt=_timestamp(refusal.at)
    )


def _timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    nanoseconds = round(seconds * 1e9)
    return timestamp_pb2.Timestamp(seconds=nanoseconds // 1_000_000_000, nanos=nanoseconds % 1_000_000_000)
