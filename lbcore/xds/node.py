"""Who a client says that it is: the part of its `Node` that answers depend on. A claim, not an identity.

Source: Envoy core/v3/base.proto; client features as xds_protocol.rst names them.
"""

from __future__ import annotations

from dataclasses import dataclass

from envoy.config.core.v3 import base_pb2

from lbcore.model import Locality

__all__ = ["UNNAMED", "Node"]

MAX_FEATURES = 64  # told apart; clients have a handful


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A client's node.

    Fields:
        id, cluster: as its operator set them.
        user_agent_name, user_agent_version: which program it is.
        locality: where it runs.
        client_features: what it says that it can do.
    """

    id: str = ""
    cluster: str = ""
    user_agent_name: str = ""
    user_agent_version: str = ""
    locality: Locality = Locality()  # noqa: RUF009  (immutable)
    client_features: frozenset[str] = frozenset()

    @classmethod
    def read(cls, message: base_pb2.Node) -> Node:
        """From the message in a client's first request."""
        place = message.locality
        build = message.user_agent_build_version.version
        version = f"{build.major_number}.{build.minor_number}.{build.patch}"
        return cls(
            id=message.id,
            cluster=message.cluster,
            user_agent_name=message.user_agent_name,
            user_agent_version=message.user_agent_version
            or (version if message.user_agent_build_version.ByteSize() else ""),
            locality=Locality(place.region, place.zone, place.sub_zone),
            client_features=frozenset(message.client_features[:MAX_FEATURES]),
        )


UNNAMED = Node()
"""A client that has not said who it is."""
