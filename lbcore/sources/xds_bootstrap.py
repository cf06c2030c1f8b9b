"""The bootstrap file of gRPC's xDS clients, which says where `xds:///NAME` is to be asked for.

Of it the first server and the node are read. Source: gRFC A27, grpc/grpc doc/grpc_xds_bootstrap_format.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lbcore.errors import InvalidSetting

__all__ = ["bootstrap_fields"]

_FILE = "GRPC_XDS_BOOTSTRAP"
_CONTENT = "GRPC_XDS_BOOTSTRAP_CONFIG"


class _Credentials(msgspec.Struct):
    type: str


class _Server(msgspec.Struct):
    server_uri: str
    channel_creds: list[_Credentials] = []


class _Node(msgspec.Struct):
    id: str = ""
    cluster: str = ""


class _Bootstrap(msgspec.Struct):
    xds_servers: list[_Server]
    node: _Node = msgspec.field(default_factory=_Node)


def bootstrap_fields(environment: Mapping[str, str] = os.environ) -> list[tuple[str, str]]:
    """Fields of an `Xds` source. Raises `InvalidSetting`."""
    try:
        if path := environment.get(_FILE, ""):
            content = Path(path).read_bytes()
        else:
            content = environment.get(_CONTENT, "").encode()
        if not content:
            raise InvalidSetting(f"expected xds://HOST:PORT/CLUSTER, or a bootstrap file in {_FILE}")
        bootstrap = msgspec.json.decode(content, type=_Bootstrap)
    except (OSError, ValueError) as wrong:
        raise InvalidSetting(f"bootstrap: {wrong}") from None
    if not bootstrap.xds_servers:
        raise InvalidSetting("bootstrap: expected a server in xds_servers")
    server = bootstrap.xds_servers[0]
    known = [each.type for each in server.channel_creds]
    if known and "insecure" not in known:
        raise InvalidSetting(f"bootstrap: channel_creds {known}: expected insecure; for TLS give the source a ca_file")
    node = {"node_id": bootstrap.node.id, "node_cluster": bootstrap.node.cluster}
    return [
        ("server", server.server_uri.removeprefix("dns:///")),
        *((field, text) for field, text in node.items() if text),
    ]
