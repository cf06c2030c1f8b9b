"""Clients of the picker service and of the registry, over gRPC.

`PickerClient` is for threads, `AsyncPickerClient` for asyncio; their methods are the same. Where the process can hold
the endpoints itself, an embedded `lbcore.Cluster` answers some thousand times as fast.

`Registration` says that this program serves a service, `RegistryAgent` the same of many endpoints under one lease;
`RegistryClient` asks what is registered.
"""

from lbcore.client.agent import RegistryAgent
from lbcore.client.aio import AsyncPickerClient, AsyncRemoteLease
from lbcore.client.batch import Picks
from lbcore.client.blocking import PickerClient, RemoteLease
from lbcore.client.messages import DEFAULT_TARGET, EndpointStatus, EndpointsUpdate, ServiceStatus
from lbcore.client.registration import Registration
from lbcore.client.registry import RegistryClient, RegistryUpdate

__all__ = [
    "DEFAULT_TARGET",
    "AsyncPickerClient",
    "AsyncRemoteLease",
    "EndpointStatus",
    "EndpointsUpdate",
    "PickerClient",
    "Picks",
    "Registration",
    "RegistryAgent",
    "RegistryClient",
    "RegistryUpdate",
    "RemoteLease",
    "ServiceStatus",
]
