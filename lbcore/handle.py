"""One thread's own way into a cluster: with cursors and random numbers of its own, it shares nothing that it writes.

Under the GIL a `Cluster` may be shared as it is. A handle pays where threads pick without the GIL: large batches
(`pick_many`), and native code (`Balancer.choose_without_gil` in lbcore/_core.pxd).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbcore.model import Locality
from lbcore.picker import Picker

if TYPE_CHECKING:
    from lbcore.cluster import Cluster

__all__ = ["Handle"]


class Handle(Picker):
    """All endpoints of a cluster, from `Cluster.handle`; it follows every update at its next use."""

    __slots__ = ("_cluster",)

    def __init__(self, cluster: Cluster, local_locality: Locality | None) -> None:
        self._cluster = cluster
        self.name = cluster.name
        self.policy = cluster.policy
        self._share(cluster, local_locality)

    def _renew(self) -> None:
        """Called by the core, before the handle is next used after a change."""
        while staleness := self._staleness():
            cluster = self._cluster
            self._install_shared(cluster, cluster.endpoints, cluster._locality_weights, staleness)

    def __repr__(self) -> str:
        return f"<Handle of {self._cluster!r}>"
