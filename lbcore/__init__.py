"""lbcore: which endpoint gets this request?

`Cluster` picks, natively, in any Python program. The services around it (xDS, picker, registry) live in the subpackages
and are imported only when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lbcore._core import Lease, Permit, VirtualClock, hash64, hash_many
from lbcore.cluster import Cluster
from lbcore.errors import ConfigError, InvalidSetting, LbError, NoEndpointAvailable, Overloaded, SourceTimedOut
from lbcore.explanation import Candidate, Ejected, Explanation
from lbcore.handle import Handle
from lbcore.model import Endpoint, Health, LoadReport, Locality
from lbcore.policy import (
    Adaptive,
    ClientSideWeightedRoundRobin,
    Jump,
    LeastRequest,
    Maglev,
    PeakEwma,
    Policy,
    Prequal,
    Random,
    Rendezvous,
    RingHash,
    RoundRobin,
)
from lbcore.request_hash import (
    Cookie,
    FilterState,
    HashPolicy,
    Header,
    QueryParameter,
    RegexRewrite,
    RequestHash,
    SourceIp,
)
from lbcore.settings import (
    CircuitBreakers,
    LocalityWeighted,
    OutlierDetection,
    PerHostThresholds,
    RetryBudget,
    SlowStart,
    ZoneAware,
)
from lbcore.stats import (
    Availability,
    BreakerStats,
    CircuitBreakerStats,
    ClusterStats,
    EjectionCause,
    EndpointStats,
    FleetLearned,
    Learned,
    OutlierDetectionStats,
    PriorityStats,
)
from lbcore.subset import Subset, Subsets, SubsetSelector
from lbcore.subsetting import DeterministicSubsetting, RandomSubsetting

if TYPE_CHECKING:
    from lbcore.source import Source
    from lbcore.sources.connecting import Connecting

__all__ = [
    "Adaptive",
    "Availability",
    "BreakerStats",
    "Candidate",
    "CircuitBreakerStats",
    "CircuitBreakers",
    "ClientSideWeightedRoundRobin",
    "Cluster",
    "ClusterStats",
    "ConfigError",
    "Cookie",
    "DeterministicSubsetting",
    "Ejected",
    "EjectionCause",
    "Endpoint",
    "EndpointStats",
    "Explanation",
    "FilterState",
    "FleetLearned",
    "Handle",
    "HashPolicy",
    "Header",
    "Health",
    "InvalidSetting",
    "Jump",
    "LbError",
    "Learned",
    "Lease",
    "LeastRequest",
    "LoadReport",
    "Locality",
    "LocalityWeighted",
    "Maglev",
    "NoEndpointAvailable",
    "OutlierDetection",
    "OutlierDetectionStats",
    "Overloaded",
    "PeakEwma",
    "PerHostThresholds",
    "Permit",
    "Policy",
    "Prequal",
    "PriorityStats",
    "QueryParameter",
    "Random",
    "RandomSubsetting",
    "RegexRewrite",
    "Rendezvous",
    "RequestHash",
    "RetryBudget",
    "RingHash",
    "RoundRobin",
    "SlowStart",
    "SourceIp",
    "SourceTimedOut",
    "Subset",
    "SubsetSelector",
    "Subsets",
    "VirtualClock",
    "ZoneAware",
    "connect",
    "hash64",
    "hash_many",
]


def connect(target: str | Source, *, timeout: float = 15.0, **settings: Any) -> Connecting:
    """A `Cluster` that a source keeps up to date in the background, on the running event loop.

    Args:
        target: where the endpoints are, such as `dns:///web.internal:80` (docs/sources.md lists the schemes), or a
            source of `lbcore.source`.
        timeout: seconds to wait for the first members.
        settings: those of `Cluster`: `policy=...` and the others, also `name=...`.

    `async with lbcore.connect(...) as cluster` closes it at the end; `cluster = await lbcore.connect(...)` leaves that
    to `await cluster.aclose()`. A source that fails later takes no member away: `cluster.stale` says why it fails.

    Raises `InvalidSetting` at a bad target or setting, `SourceTimedOut` where the source does not answer in time.
    Needs `lbcore[service]`.

    >>> import asyncio, lbcore
    >>> async def main():
    ...     async with lbcore.connect("ipv4:10.0.0.1:80", policy=lbcore.Random()) as cluster:
    ...         return cluster.pick().address
    >>> asyncio.run(main())
    '10.0.0.1:80'
    """
    from lbcore.sources.connecting import Connecting

    return Connecting(target, timeout=timeout, settings=settings)


def get_include() -> str:
    """The folder for a Cython build's `include_path`, where `cimport lbcore` finds its declarations."""
    from pathlib import Path

    return str(Path(__file__).parent.parent)
