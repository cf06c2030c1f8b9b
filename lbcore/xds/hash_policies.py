"""Request hashes as a route's `hash_policy`: Envoy computes what `lbcore.request_hash` does, gRPC heeds headers alone.

gRPC passes over the kinds that it does not know; of filter state it knows `io.grpc.channel_id`, by which all calls of a
channel go to one endpoint. Sources: Envoy route_components.proto; gRFC A42, gRPC xds_route_config_parser.cc.
"""

from __future__ import annotations

from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import regex_pb2
from google.protobuf.message import Message

from lbcore.request_hash import (
    Cookie,
    FilterState,
    HashMethod,
    HashPolicy,
    Header,
    QueryParameter,
    RegexRewrite,
    SourceIp,
)
from lbcore.xds.messages import duration

__all__ = ["hash_policies"]

_Message = route_components_pb2.RouteAction.HashPolicy


def hash_policies(policy: HashPolicy | None) -> list[Message]:
    """The entries of RouteAction.hash_policy, in order."""
    return [_entry(method) for method in policy.methods] if policy else []


def _entry(method: HashMethod) -> Message:
    message: Message
    match method:
        case Header():
            header = _Message.Header(header_name=method.name, regex_rewrite=_rewrite(method.regex_rewrite))
            message = _Message(header=header)
        case Cookie():
            message = _Message(cookie=_cookie(method))
        case QueryParameter():
            message = _Message(query_parameter=_Message.QueryParameter(name=method.name))
        case SourceIp():
            message = _Message(connection_properties=_Message.ConnectionProperties(source_ip=True))
        case FilterState():
            message = _Message(filter_state=_Message.FilterState(key=method.key))
    message.terminal = method.terminal  # type: ignore[attr-defined]  # every kind of entry has it
    return message


def _cookie(method: Cookie) -> Message:
    message: Message = _Message.Cookie(
        name=method.name,
        ttl=None if method.ttl is None else duration(method.ttl),
        path=method.path,
        attributes=[_Message.CookieAttribute(name=name, value=content) for name, content in method.attributes.items()],
    )
    return message


def _rewrite(rewrite: RegexRewrite | None) -> Message | None:
    if rewrite is None:
        return None
    pattern = regex_pb2.RegexMatcher(google_re2=regex_pb2.RegexMatcher.GoogleRE2(), regex=rewrite.pattern)
    message: Message = regex_pb2.RegexMatchAndSubstitute(pattern=pattern, substitution=rewrite.substitution)
    return message
