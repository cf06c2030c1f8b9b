"""What the tests read back from a cluster, in one place."""

from __future__ import annotations

from lbcore import Cluster


def active_requests(cluster: Cluster) -> dict[str, int]:
    """Requests in flight by address."""
    return {each.endpoint.address: each.active for each in cluster.stats().endpoints}
