"""The bootstrap file of gRPC's xDS clients, which says where `xds:///NAME` is to be asked for.

Of it the first server, its credentials, whether it may delete, and the node are read, less the node's metadata.
Source: gRFC A27, A53 and A65, grpc/grpc doc/grpc_xds_bootstrap_format.md.
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
_KEEPS_DELETED = "ignore_resource_deletion"  # gRFC A53


class _Files(msgspec.Struct):
    ca_certificate_file: str = ""
    certificate_file: str = ""
    private_key_file: str = ""


class _Credentials(msgspec.Struct):
    type: str
    config: msgspec.Raw = msgspec.Raw(b"{}")


class _Server(msgspec.Struct):
    server_uri: str
    channel_creds: list[_Credentials] = []
    server_features: list[str] = []


class _Locality(msgspec.Struct):
    region: str = ""
    zone: str = ""
    sub_zone: str = ""


class _Node(msgspec.Struct):
    id: str = ""
    cluster: str = ""
    locality: _Locality = msgspec.field(default_factory=_Locality)


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
    place = bootstrap.node.locality
    fields = {
        "node_id": bootstrap.node.id,
        "node_cluster": bootstrap.node.cluster,
        "node_locality": "/".join((place.region, place.zone, place.sub_zone)).rstrip("/"),
        "ignore_resource_deletion": "true" if _KEEPS_DELETED in server.server_features else "",
        **_credentials(server.channel_creds),
    }
    return [
        ("server", server.server_uri.removeprefix("dns:///")),
        *((field, text) for field, text in fields.items() if text),
    ]


def _credentials(offered: list[_Credentials]) -> dict[str, str]:
    """The fields for the first of the credentials that can be used, as gRPC chooses. Raises `InvalidSetting`."""
    for each in offered:
        if each.type == "insecure":
            return {}
        if each.type == "tls":
            try:
                files = msgspec.json.decode(each.config, type=_Files)
            except msgspec.MsgspecError as wrong:
                raise InvalidSetting(f"bootstrap: channel_creds tls: {wrong}") from None
            if not files.ca_certificate_file:
                raise InvalidSetting("bootstrap: channel_creds tls: expected a ca_certificate_file in its config")
            return {
                "ca_file": files.ca_certificate_file,
                "cert_file": files.certificate_file,
                "key_file": files.private_key_file,
            }
    if offered:
        types = [each.type for each in offered]
        raise InvalidSetting(f"bootstrap: channel_creds {types}: expected insecure or tls among them")
    return {}
