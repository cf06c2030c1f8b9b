"""lbcore: which endpoint gets this request?

`Cluster` picks, natively, in any Python program. The services around it (xDS, picker, registry) live in the subpackages
and are imported only when they are used.
"""

from lbcore._core import Lease, VirtualClock, hash64, hash_many
from lbcore.cluster import Cluster
from lbcore.errors import ConfigError, InvalidSetting, LbError, NoEndpointAvailable
from lbcore.explanation import Candidate, Explanation
from lbcore.handle import Handle
from lbcore.model import Endpoint, Health, LoadReport, Locality
from lbcore.policy import Jump, LeastRequest, Maglev, PeakEwma, Policy, Random, Rendezvous, RingHash, RoundRobin
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
from lbcore.settings import CircuitBreakers, LocalityWeighted, OutlierDetection, SlowStart, ZoneAware
from lbcore.stats import (
    Availability,
    ClusterStats,
    EjectionCause,
    EndpointStats,
    OutlierDetectionStats,
    PriorityStats,
)
from lbcore.subset import Subset, Subsets, SubsetSelector

__all__ = [
    "Availability",
    "Candidate",
    "CircuitBreakers",
    "Cluster",
    "ClusterStats",
    "ConfigError",
    "Cookie",
    "EjectionCause",
    "Endpoint",
    "EndpointStats",
    "Explanation",
    "FilterState",
    "Handle",
    "HashPolicy",
    "Header",
    "Health",
    "InvalidSetting",
    "Jump",
    "LbError",
    "Lease",
    "LeastRequest",
    "LoadReport",
    "Locality",
    "LocalityWeighted",
    "Maglev",
    "NoEndpointAvailable",
    "OutlierDetection",
    "OutlierDetectionStats",
    "PeakEwma",
    "Policy",
    "PriorityStats",
    "QueryParameter",
    "Random",
    "RegexRewrite",
    "Rendezvous",
    "RequestHash",
    "RingHash",
    "RoundRobin",
    "SlowStart",
    "SourceIp",
    "Subset",
    "SubsetSelector",
    "Subsets",
    "VirtualClock",
    "ZoneAware",
    "hash64",
    "hash_many",
]


def get_include() -> str:
    """The folder for a Cython build's `include_path`, where `cimport lbcore` finds its declarations."""
    from pathlib import Path

    return str(Path(__file__).parent.parent)
