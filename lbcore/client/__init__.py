"""Clients of the picker service: which endpoint gets this request, asked over gRPC.

`PickerClient` is for threads, `AsyncPickerClient` for asyncio; their methods are the same. Where the process can hold
the endpoints itself, an embedded `lbcore.Cluster` answers some thousand times as fast.
"""

from lbcore.client.aio import AsyncPickerClient, AsyncRemoteLease
from lbcore.client.batch import Picks
from lbcore.client.blocking import PickerClient, RemoteLease
from lbcore.client.messages import DEFAULT_TARGET, EndpointStatus, EndpointsUpdate, ServiceStatus

__all__ = [
    "DEFAULT_TARGET",
    "AsyncPickerClient",
    "AsyncRemoteLease",
    "EndpointStatus",
    "EndpointsUpdate",
    "PickerClient",
    "Picks",
    "RemoteLease",
    "ServiceStatus",
]
