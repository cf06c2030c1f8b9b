"""One `Cluster` for each service of the directory, kept as the newest snapshot has it.

Everything here runs on the event loop's thread, so an index, the endpoint table and its version always belong together.
A service that the engine refuses keeps its last good cluster; the others go on.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from lbcore.cluster import Cluster
from lbcore.directory import Directory, DirectorySnapshot, ServiceSnapshot
from lbcore.errors import InvalidSetting, LbError, NotReady, UnknownService
from lbcore.findings import Findings
from lbcore.handle import Handle
from lbcore.model import Endpoint, Health, Locality
from lbcore.picker import Picker
from lbcore.service.permission import sees
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.wire import endpoint_message, metadata_value, policy_name, table_message
from lbcore.settings import LocalityWeighted, ZoneAware
from lbcore.stats import EndpointStats
from lbcore.validation import text

__all__ = ["Clusters", "Hashes", "ServedCluster", "View"]

logger = logging.getLogger(__name__)

View: TypeAlias = Picker  # of a service: a cluster, a subset of it, a handle for one locality
Callers: TypeAlias = Mapping[Locality, int]
Hashes: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint64]]
Indices: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]
_NOWHERE: Indices = np.array([-1], dtype=np.int32)

_TICK = 1.0  # seconds
_NOTHING = Findings()
_ELSEWHERE = Locality("\0")  # where no caller is: no source can name it
_LONGEST_NAME = 200  # characters of a name that are compared and shown; a client may send megabytes


class ServedCluster:
    """A service's cluster, with what is serialised once for each of its versions."""

    def __init__(self, service: ServiceSnapshot, callers: Callers) -> None:
        self.service = service
        self.said: ServiceSnapshot = service  # with the health that discovery says
        self.findings = Findings()
        self.callers = callers
        self.cluster = _build(service, callers)
        self.picks = 0
        self._handles: dict[Locality, Handle] = {}
        self._positions: WeakKeyDictionary[View, tuple[tuple[Endpoint, ...], Indices]] = WeakKeyDictionary()
        self._answers: dict[str, bytes] = {}
        self._table: pb.EndpointTable | None = None

    @property
    def version(self) -> str:
        """The version of the endpoint table."""
        return self.service.version

    def view(self, request: pb.PickRequest | pb.ExplainRequest | pb.PickStreamRequest) -> View:
        """What picks for a request: one of the service's subsets, or all of it, as seen from where the request comes.

        As in Envoy, a request that names no subset gets what `fallback_policy` says, where the service has subsets.
        Raises `InvalidSetting`.
        """
        place = self._place(request.local_locality)
        if self.service.subsets is not None:
            return self.cluster.subset(metadata_value(request.subset), local_locality=place)
        if request.HasField("subset"):
            raise InvalidSetting(f"subset: service {self.service.name!r} has no subsets")
        if place == self.cluster.local_locality:
            return self.cluster
        if place not in self._handles:
            self._handles[place] = self.cluster.handle(local_locality=place)
        return self._handles[place]

    def _place(self, local_locality: str) -> Locality:
        """Where a request comes from, as far as that matters: all localities without callers are alike."""
        if not local_locality:
            return self.service.local_locality
        try:
            place = Locality.parse(text(local_locality, "local_locality"))
        except InvalidSetting as error:
            raise InvalidSetting(f"local_locality: {error}") from None
        if not isinstance(self.service.locality_policy, ZoneAware):
            return self.service.local_locality
        return place if place in self.callers else _ELSEWHERE

    def pick_many(self, view: View, keys: Hashes | int) -> Indices:
        """Picks of a view as positions in the endpoint table, -1 where there is none."""
        picked = view.pick_many(keys)
        endpoints = view.endpoints
        if endpoints is self.cluster.endpoints:
            return picked
        known, positions = self._positions.get(view, ((), _NOWHERE))
        if known is not endpoints:
            places = {endpoint.address: position for position, endpoint in enumerate(self.cluster.endpoints)}
            listed = [places[endpoint.address] for endpoint in endpoints]
            positions = np.array([*listed, -1], dtype=np.int32)  # -1 finds the last
            self._positions[view] = (endpoints, positions)
        return positions[picked]

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

    def said_health(self) -> dict[str, Health]:
        """What discovery says, by address."""
        return {endpoint.address: endpoint.health for endpoint in self.said.endpoints}

    def status(self) -> pb.ServiceStatus:
        """The service as it is now, with what is in flight to each endpoint, and what checks have found of it."""
        return pb.ServiceStatus(
            name=self.service.name,
            version=self.version,
            policy=policy_name(self.service.policy),
            endpoints=[
                pb.EndpointStatus(
                    endpoint=endpoint_message(each.endpoint),
                    active=each.active,
                    reason=self._reason(each),
                )
                for each in self.cluster.stats().endpoints
            ],
        )

    def _reason(self, each: EndpointStats) -> str:
        if each.ejected and each.ejection_cause is not None:
            return f"ejected: {each.ejection_cause.value}"
        found = self.findings.of(each.endpoint.address)
        return found.reason if found else ""

    def update(self, service: ServiceSnapshot, callers: Callers) -> None:
        """Takes the service's new content over; in-flight counts survive unless its policy or settings changed."""
        if _settings(service) == _settings(self.service):
            weights = _locality_weights(service)
            self.cluster.update(service.endpoints, locality_weights=weights, local_hosts=dict(callers.items()))
        else:
            self.cluster = _build(service, callers)
            self._handles.clear()
        self.service = service
        self.callers = callers
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
        served = self._served.get(name)
        if served is not None and sees(name, "pick"):
            return served
        visible = [each.service.name for each in self.visible()]
        name = name[:_LONGEST_NAME]
        near = difflib.get_close_matches(name, visible, n=3)
        hint = f"; near to it: {', '.join(near)}" if near else ""
        raise UnknownService(f"service {name!r}: unknown{hint}")

    def visible(self) -> list[ServedCluster]:
        """All that the caller may pick from. Raises `NotReady` before the directory is synced."""
        if not self.directory.synced:
            raise NotReady("not every source has been heard from yet")
        return [each for each in self if sees(each.service.name, "pick")]

    def apply(self, snapshot: DirectorySnapshot) -> None:
        """Brings the clusters to a snapshot; does nothing where they are there already."""
        if snapshot is self._applied:
            return
        self._applied = snapshot
        for name in self._served.keys() - snapshot.services.keys():
            del self._served[name]
        for name, service in snapshot.services.items():
            served = self._served.get(name)
            callers = callers_of(service, snapshot.services)
            if served is None or served.service is not service:
                _warn_of_unknown_callers(service, snapshot.services)
            try:
                if served is None:
                    served = self._served[name] = ServedCluster(service, callers)
                elif served.service is not service or served.callers != callers:
                    served.update(service, callers)
            except LbError as error:
                logger.error("service %r is not picked from as it is now: %s", name, error)
                continue
            served.said = snapshot.said.get(name, service)
            served.findings = snapshot.findings.get(name, _NOTHING)

    async def run(self) -> None:
        """Follows the directory for ever; the caller cancels it."""
        async for snapshot in self.directory.watch():
            self.apply(snapshot)

    def passed_check(self, name: str, address: str) -> None:
        """Takes an active check that has passed once more: it ends an ejection (see `Cluster.passed_check`)."""
        if name in self._served:
            self._served[name].cluster.passed_check(address)

    async def tick(self) -> None:
        """Has each cluster do its interval work once a second, for ever; the caller cancels it."""
        while True:
            await asyncio.sleep(_TICK)
            for served in self:
                served.cluster.tick()


def callers_of(service: ServiceSnapshot, services: Mapping[str, ServiceSnapshot]) -> Callers:
    """How many callers a service that routes by zone has in each locality (Envoy: calculateLocalityPercentages)."""
    policy = service.locality_policy
    if not isinstance(policy, ZoneAware):
        return {}
    if policy.local_service is None:
        return {place: count for place, count in policy.local_hosts.items() if isinstance(place, Locality)}
    callers: dict[Locality, int] = {}
    if policy.local_service in services:
        for endpoint in services[policy.local_service].endpoints:
            if endpoint.health in (Health.UNKNOWN, Health.HEALTHY):
                counts = endpoint.weight if policy.locality_basis == "healthy_hosts_weight" else 1
                callers[endpoint.locality] = callers.get(endpoint.locality, 0) + counts
    return callers


def _warn_of_unknown_callers(service: ServiceSnapshot, services: Collection[str]) -> None:
    policy = service.locality_policy
    if isinstance(policy, ZoneAware) and policy.local_service is not None and policy.local_service not in services:
        what = "service %r does not route by zone: its local_service %r is unknown"
        logger.warning(what, service.name, policy.local_service)


def _settings(service: ServiceSnapshot) -> tuple[object, ...]:
    """All of a service that a `Cluster` takes only when it is made."""
    return (
        service.policy,
        service.overprovisioning_factor,
        service.panic_threshold,
        service.fail_traffic_on_panic,
        service.subsetting,
        service.subsets,
        service.local_locality,
        _locality_policy(service),
        service.outlier_detection,
        service.circuit_breakers,
    )


def _locality_policy(service: ServiceSnapshot) -> LocalityWeighted | ZoneAware | None:
    """Without its callers: these come and go."""
    if isinstance(service.locality_policy, ZoneAware):
        return replace(service.locality_policy, local_hosts={}, local_service=None)
    return LocalityWeighted() if service.is_locality_weighted else None


def _locality_weights(service: ServiceSnapshot) -> dict[Locality | str, int]:
    """1 where nothing is said, as in the assignment that xDS clients get."""
    if not service.is_locality_weighted:
        return {}
    return {each.locality: service.locality_weights.get(each.locality, 1) for each in service.endpoints}


def _build(service: ServiceSnapshot, callers: Callers) -> Cluster:
    cluster = Cluster(
        service.name,
        policy=service.policy,
        locality_policy=_locality_policy(service),
        local_locality=service.local_locality,
        overprovisioning_factor=service.overprovisioning_factor,
        panic_threshold=service.panic_threshold,
        fail_traffic_on_panic=service.fail_traffic_on_panic,
        subsetting=service.subsetting,
        subsets=service.subsets,
        outlier_detection=service.outlier_detection,
        circuit_breakers=service.circuit_breakers,
    )
    weights = _locality_weights(service)
    cluster.update(service.endpoints, locality_weights=weights, local_hosts=dict(callers.items()))
    return cluster
