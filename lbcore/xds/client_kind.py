"""Which of two views a client gets: Envoy and gRPC accept different listeners and clusters, never mixed in one answer.

A client is what its `node.user_agent_name` says. One that says neither is taken for what its subscription looks like:
Envoy subscribes to listeners and clusters by wildcard, gRPC by name. That is settled by its first request for a type.
"""

from __future__ import annotations

import enum

from lbcore.xds.resource_type import ResourceType

__all__ = ["ClientKind"]


class ClientKind(enum.Enum):
    """ENVOY and GRPC; EITHER is for types that both may read from one table."""

    ENVOY = "envoy"
    GRPC = "grpc"
    EITHER = "either"

    __hash__ = object.__hash__  # as ResourceType's

    @classmethod
    def of(cls, user_agent_name: str, resource_type: ResourceType, wildcard: bool) -> ClientKind:
        """The view for a client whose first request for a type is (or is not) a wildcard."""
        agent = user_agent_name.lower()
        if agent.startswith("envoy"):
            return cls.ENVOY
        if agent.startswith("grpc"):  # "gRPC C-core linux Python", "gRPC Go", "gRPC Java", …
            return cls.GRPC
        if not resource_type.whole:
            return cls.EITHER
        return cls.ENVOY if wildcard else cls.GRPC
