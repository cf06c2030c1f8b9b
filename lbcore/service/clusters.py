"""One `Cluster` for each service of the directory, kept as the newest snapshot has it.

Everything here runs on the event loop's thread, so an index, the endpoint table and its version always belong together.
A service that the engine refuses keeps its last good cluster; the others go on.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Iterator

from lbcore.cluster import Cluster
from lbcore.directory import Directory, DirectorySnapshot, ServiceSnapshot
from lbcore.errors import LbError, NotReady, UnknownService
from lbcore.model import Endpoint, Locality
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.wire import endpoint_message, policy_name, table_message
from lbcore.settings import LocalityWeighted

__all__ = ["Clusters", "ServedCluster"]

logger = logging.getLogger(__name__)

_TICK = 1.0  # seconds
_LONGEST_NAME = 200  # characters of a name that are compared and shown; a client may send megabytes


class ServedCluster:
    """A service's cluster, with what is serialised once for each of its versions."""

    def __init__(self, service: ServiceSnapshot) -> None:
        self.service = service
        self.cluster = _build(service)
        self.picks = 0
        self._answers: dict[str, bytes] = {}
        self._table: pb.EndpointTable | None = None

    @property
    def version(self) -> str:
        """The version of the endpoint table."""
        return self.service.version

    @property
    def table(self) -> pb.EndpointTable:
        """The endpoint table that the cluster's indices refer to."""
        if self._table is None:
            self._table = table_message(self.version, self.cluster.endpoints)
        return self._table

    def answer(self, endpoint: Endpoint) -> bytes:
        """The serialised `PickResponse` for one endpoint."""
        answer = self._answers.get(endpoint.address)
        if answer is None:
            response = pb.PickResponse(endpoints=[endpoint_message(endpoint)], table_version=self.version)
            answer = self._answers[endpoint.address] = response.SerializeToString()
        return answer

    def status(self) -> pb.ServiceStatus:
        """The service as it is now, with what is in flight to each endpoint."""
        return pb.ServiceStatus(
            name=self.service.name,
            version=self.version,
            policy=policy_name(self.service.policy),
            endpoints=[
                pb.EndpointStatus(endpoint=endpoint_message(each.endpoint), active=each.active)
                for each in self.cluster.stats().endpoints
            ],
        )

    def update(self, service: ServiceSnapshot) -> None:
        """Takes the service's new content over; in-flight counts survive unless its policy or settings changed."""
        if _settings(service) == _settings(self.service):
            self.cluster.update(service.endpoints, locality_weights=_locality_weights(service))
        else:
            self.cluster = _build(service)
        self.service = service
        self._answers.clear()
        self._table = None


class Clusters:
    """Service name to `ServedCluster`."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._applied: DirectorySnapshot | None = None
        self._served: dict[str, ServedCluster] = {}

    def __iter__(self) -> Iterator[ServedCluster]:
        """The clusters, by name."""
        return iter([self._served[name] for name in sorted(self._served)])

    def get(self, name: str) -> ServedCluster:
        """The cluster of a service. Raises `UnknownService`, or `NotReady` before the directory is synced."""
        try:
            return self._served[name]
        except KeyError:
            pass
        if not self.directory.synced:
            raise NotReady("not every source has been heard from yet")
        name = name[:_LONGEST_NAME]
        near = difflib.get_close_matches(name, self._served, n=3)
        hint = f"; near to it: {', '.join(near)}" if near else ""
        raise UnknownService(f"service {name!r}: unknown{hint}")

    def apply(self, snapshot: DirectorySnapshot) -> None:
        """Brings the clusters to a snapshot; does nothing where they are there already."""
        if snapshot is self._applied:
            return
        self._applied = snapshot
        for name in self._served.keys() - snapshot.services.keys():
            del self._served[name]
        for name, service in snapshot.services.items():
            served = self._served.get(name)
            try:
                if served is None:
                    self._served[name] = ServedCluster(service)
                elif served.service is not service:
                    served.update(service)
            except LbError as error:
                logger.error("service %r is not picked from as it is now: %s", name, error)

    async def run(self) -> None:
        """Follows the directory for ever; the caller cancels it."""
        async for snapshot in self.directory.watch():
            self.apply(snapshot)

    async def tick(self) -> None:
        """Has each cluster do its interval work once a second, for ever; the caller cancels it."""
        while True:
            await asyncio.sleep(_TICK)
            for served in self:
                served.cluster.tick()


def _settings(service: ServiceSnapshot) -> tuple[object, ...]:
    """All of a service that a `Cluster` takes only when it is made."""
    return (service.policy, service.overprovisioning_factor, service.panic_threshold, bool(service.locality_weights))


def _locality_weights(service: ServiceSnapshot) -> dict[Locality | str, int]:
    return dict(service.locality_weights.items())


def _build(service: ServiceSnapshot) -> Cluster:
    cluster = Cluster(
        service.name,
        policy=service.policy,
        locality_policy=LocalityWeighted() if service.locality_weights else None,
        overprovisioning_factor=service.overprovisioning_factor,
        panic_threshold=service.panic_threshold,
    )
    cluster.update(service.endpoints, locality_weights=_locality_weights(service))
    return cluster
