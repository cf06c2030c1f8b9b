"""`Cluster`: membership and settings in, picks out.

Validation and everything that does not happen per pick live here, in Python; `pick`, `acquire`, `pick_many` and `rank`
are inherited from the native `Balancer` as they are. Updates take a lock among themselves; picks never wait for one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, get_args

from lbcore.errors import InvalidSetting
from lbcore.handle import Handle
from lbcore.model import MAX_WEIGHT, ByLocality, CheckedHealth, Endpoint, LoadReport, Locality, WholeByLocality
from lbcore.outlier_events import OutlierEventLog
from lbcore.picker import Picker
from lbcore.policy import Adaptive, Policy
from lbcore.settings import CircuitBreakers, LocalityWeighted, OutlierDetection, ZoneAware
from lbcore.stats import Availability
from lbcore.subset import Subset, Subsets, SubsetTable
from lbcore.subsetting import DeterministicSubsetting, RandomSubsetting, Subsetting, subset_by_priority
from lbcore.validation import flag, number, refusal, text, whole

__all__ = ["Cluster"]

S = TypeVar("S")

_POLICIES = get_args(Policy)
_LOCAL_HOSTS = WholeByLocality("callers", 0)


class Cluster(Picker):
    """The endpoints of one service, and the policy that picks among them.

    Args:
        name: for messages and statistics.
        endpoints: the first members; no address twice.
        policy: how to pick; None: `Adaptive()`.
        locality_policy: None, `LocalityWeighted()` or `ZoneAware(...)`.
        local_locality: where this process runs; `ZoneAware` needs it.
        overprovisioning_factor: percent, 1 or more: a priority of which 100 / factor is healthy takes all its traffic.
        panic_threshold: percent; with less of a priority available all of its endpoints are used. 0 turns it off.
        fail_traffic_on_panic: in panic, pick none instead of all.
        circuit_breakers: how much may be under way at once; None: without limit.
        outlier_detection: when endpoints that answer badly, by what `Lease.done` hears, are ejected; None: never.
        subsets: which subsets `subset()` may ask for, by endpoint metadata.
        subsetting: which of the endpoints this client uses at all, where it is one of many; `endpoints` are then those.
        seed: of every random choice; equal seeds and calls give equal picks.
        clock: called for the time in nanoseconds; None reads CLOCK_MONOTONIC.

    Raises `InvalidSetting` (a `ValueError`) that names the field, the value and what is allowed.

    Threads may share a cluster: picks, leases and updates are atomic to each other.

    >>> from lbcore import Cluster, Endpoint, RoundRobin
    >>> cluster = Cluster("web", [Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:80")], policy=RoundRobin(), seed=1)
    >>> sorted(cluster.pick().address for _ in range(2))
    ['10.0.0.1:80', '10.0.0.2:80']
    >>> with cluster.acquire() as endpoint:
    ...     cluster.stats().active
    1
    """

    __slots__ = (
        "_local_hosts",
        "_locality_weights",
        "_outlier_log",
        "_panics",
        "_subset_table",
        "_updating",
        "circuit_breakers",
        "local_locality",
        "locality_policy",
        "subsetting",
    )

    def __init__(
        self,
        name: str,
        endpoints: Iterable[Endpoint] = (),
        *,
        policy: Policy | None = None,
        locality_policy: LocalityWeighted | ZoneAware | None = None,
        local_locality: Locality | str | None = None,
        overprovisioning_factor: int = 140,
        panic_threshold: float = 50.0,
        fail_traffic_on_panic: bool = False,
        outlier_detection: OutlierDetection | None = None,
        circuit_breakers: CircuitBreakers | None = None,
        subsets: Subsets | None = None,
        subsetting: Subsetting | None = None,
        seed: int | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self.name = text(name, "name")
        self.policy = Adaptive() if policy is None else policy
        if not isinstance(self.policy, _POLICIES):
            names = ", ".join(each.__name__ for each in _POLICIES)
            raise InvalidSetting(f"policy {policy!r}: expected one of {names}")
        self.circuit_breakers = _setting(circuit_breakers, CircuitBreakers, "circuit_breakers")
        self.locality_policy = locality_policy
        self.subsetting = subsetting
        if subsetting is not None and not isinstance(subsetting, DeterministicSubsetting | RandomSubsetting):
            what = f"subsetting {subsetting!r}: expected None, a DeterministicSubsetting or a RandomSubsetting"
            raise InvalidSetting(what)
        self.local_locality = _locality(local_locality)
        self._local_hosts = _local_hosts(locality_policy, self.local_locality)
        self._updating = threading.Lock()
        detection = _setting(outlier_detection, OutlierDetection, "outlier_detection")
        path = detection.event_log_path if detection else ""
        self._outlier_log = OutlierEventLog(name, path) if path else None
        fails = flag(fail_traffic_on_panic, "fail_traffic_on_panic")
        threshold = int(number(panic_threshold, "panic_threshold", 0.0, 100.0))
        self._panics = threshold > 0 and not fails  # uses all endpoints where too few are usable
        self._set_up(
            self.policy,
            {
                "overprovisioning_factor": whole(overprovisioning_factor, "overprovisioning_factor", 1, MAX_WEIGHT),
                "panic_threshold": threshold,
                "fail_traffic_on_panic": fails,
                "locality_weighted": isinstance(locality_policy, LocalityWeighted),
                "local_locality": self.local_locality,
                "zone_aware": locality_policy if isinstance(locality_policy, ZoneAware) else None,
                "local_hosts": self._local_hosts,
                "outlier_detection": detection,
                "circuit_breakers": self.circuit_breakers,
            },
            _seed(seed),
            _clock(clock),
        )
        self._locality_weights: dict[Locality, int] = {}
        self._install((), {})
        self._subset_table = SubsetTable(self, _subsets(subsets))
        self.update(endpoints)

    def update(
        self,
        endpoints: Iterable[Endpoint],
        *,
        locality_weights: ByLocality | None = None,
        local_hosts: ByLocality | None = None,
    ) -> bool:
        """Replaces the membership, all at once; counts of requests in flight stay with their addresses.

        Args:
            endpoints: all of them, in the order that ties and rotations follow; no address twice.
            locality_weights: 0 to 4294967295 by locality, for `LocalityWeighted`; None keeps those given before.
            local_hosts: how many callers are in each locality, for `ZoneAware`; None keeps those given before.

        Returns whether anything changed. Raises `InvalidSetting`; then nothing has changed.
        """
        members = tuple(endpoints)
        if self.subsetting is not None:
            _check_members(members)
            members = subset_by_priority(self.subsetting, members)
        with self._updating:
            weights = self._locality_weights if locality_weights is None else _weights(locality_weights)
            callers = self._local_hosts if local_hosts is None else _LOCAL_HOSTS(local_hosts, "local_hosts")
            if members == self.endpoints and weights == self._locality_weights and callers == self._local_hosts:
                return False
            _check_members(members)
            before = self._locality_weights, self._local_hosts
            self._weigh(weights, callers)
            try:
                self._install(members, weights)
            except BaseException:
                self._weigh(*before)
                raise
            self._subset_table.renew()
            return True

    def _weigh(self, locality_weights: dict[Locality, int], local_hosts: dict[Locality, int]) -> None:
        """Takes what views read besides the endpoints; before these, because a change of these makes views look."""
        self._locality_weights = locality_weights
        self._local_hosts = local_hosts
        if isinstance(self.locality_policy, ZoneAware):
            self._set_local_hosts(local_hosts)

    def set_health(self, address: str, healthy: bool, *, degraded: bool = False, excluded: bool = False) -> None:
        """Takes what an active check has found; an endpoint that fails is out until it passes, whatever discovery says.

        Args:
            address, healthy: which endpoint, and whether it passes.
            degraded: it passes, and is to be used after all that are healthy.
            excluded: it fails because it leaves: availability is measured without it, as without a draining one.

        A check that passes also ends an ejection, unless `successful_active_health_check_uneject_host` is off.
        Raises KeyError where the cluster has no such address.
        """
        found = flag(healthy, "healthy"), flag(degraded, "degraded"), flag(excluded, "excluded")
        with self._updating:
            self._set_health(address, *found, True)
            self._renew()

    def apply_checks(self, found: Mapping[str, CheckedHealth]) -> None:
        """Takes what active checks have found of many endpoints, by address, at the cost of one change.

        Addresses that the cluster has not, or no more, are passed over. It ends no ejection: `passed_check` does that.
        Raises TypeError where it is no such mapping; then nothing has changed.
        """
        if not isinstance(found, Mapping):
            raise TypeError(f"found {found!r}: expected a mapping of addresses to CheckedHealth")
        for address, health in found.items():
            if not isinstance(health, CheckedHealth):
                raise TypeError(f"found[{address!r}] {health!r}: expected a CheckedHealth")
        with self._updating:
            members = {endpoint.address for endpoint in self.endpoints}
            for address, health in found.items():
                if address in members:
                    self._set_health(address, health.passing, health.degraded, health.excluded, False)
            self._renew()

    def passed_check(self, address: str) -> None:
        """Takes an active check that has passed once more: it ends an ejection, as `set_health` does, or does nothing.

        An address that the cluster has not, or no more, is passed over.
        """
        self._passed_check(address)

    def observe(self, address: str, load: LoadReport, *, latency: float | None = None) -> None:
        """Takes what a probe has found of an endpoint: what `Prequal` picks by, and what `Adaptive` learns queues from.

        Args:
            address: which endpoint.
            load: its report; `rif`, the requests that it has in flight, must be there.
            latency: seconds that requests take there now, by the server's word or the probe's own; None: what
                answers to this cluster's requests took on average stands in.

        The other policies ask for no probes, and take no notice. Raises KeyError where the cluster has no such
        address, ValueError without `rif` and at a latency below 0.0, TypeError at what is no report or no number.
        """
        if not isinstance(address, str):
            raise TypeError(f"address {address!r}: expected a str")
        if not isinstance(load, LoadReport):
            raise TypeError(f"load {load!r}: expected a LoadReport")
        if load.rif is None:
            raise ValueError(f"load {load!r}: expected rif, the requests that the server has in flight")
        with self._updating:
            self._observe(address, load, latency)

    def tick(self) -> None:
        """Does the interval work that is due by the clock: sweeps of outlier detection, the end of slow starts,
        new weights of `ClientSideWeightedRoundRobin`, new lines of the event log.

        Call it about once a second.
        """
        with self._updating:
            self._sweep()
            self._end_ramps()
            self._renew()
            self._refresh_learned()
            if self._outlier_log is not None and (noted := self._outlier_events()):
                self._outlier_log.write(noted, self._now())

    def handle(self, *, local_locality: Locality | str | None = None) -> Handle:
        """A way into this cluster for one thread that picks without the GIL: in large batches, or from native code.

        Args:
            local_locality: where the handle's requests come from, for `ZoneAware`; None: where the cluster's do.
        """
        place = _locality(local_locality) or self.local_locality
        with self._updating:
            return Handle(self, place)

    def subset(self, criteria: Mapping[str, Any], *, local_locality: Locality | str | None = None) -> Subset:
        """A view of the endpoints whose metadata match, to pick among them alone; it follows every update.

        Args:
            criteria: metadata keys and values. Its keys must be those of one of the selectors in `subsets`; which
                endpoints stand in where they are not, or where none matches, is the fallback policy's to say.
            local_locality: where the requests come from, for `ZoneAware`; None: where the cluster's do.

        Slots are shared: a request in flight counts in the cluster and in each of its views. Views are made once and
        kept, so call it for each request if that is easier.

        >>> from lbcore import Cluster, Endpoint, Subsets, SubsetSelector
        >>> cluster = Cluster(
        ...     "web",
        ...     [Endpoint(f"10.0.0.{version}:80", metadata={"version": version}) for version in ("1", "2")],
        ...     subsets=Subsets(selectors=(SubsetSelector(keys=("version",)),)),
        ... )
        >>> cluster.subset({"version": "2"}).pick().address
        '10.0.0.2:80'
        """
        with self._updating:
            return self._subset_table.view(criteria, _locality(local_locality) or self.local_locality)

    def _usable(self) -> set[Endpoint]:
        """The endpoints that are healthy or degraded."""
        return {each.endpoint for each in self.stats().endpoints if each.availability is not Availability.UNAVAILABLE}


def _check_members(members: tuple[Endpoint, ...]) -> None:
    if len({endpoint.address for endpoint in members if isinstance(endpoint, Endpoint)}) == len(members):
        return
    places: dict[str, int] = {}
    for position, endpoint in enumerate(members):
        if not isinstance(endpoint, Endpoint):
            raise InvalidSetting(f"endpoints[{position}] {endpoint!r}: expected an Endpoint")
        first = places.setdefault(endpoint.address, position)
        if first != position:
            raise InvalidSetting(
                f"endpoints[{position}].address {endpoint.address!r}: endpoints[{first}] has it already, "
                "expected each address once"
            )


def _locality(value: Locality | str | None) -> Locality | None:
    if value is None or isinstance(value, Locality):
        return value
    return Locality.parse(text(value, "local_locality"))


def _weights(weights: ByLocality) -> dict[Locality, int]:
    parsed: dict[Locality, int] = {}
    if not isinstance(weights, Mapping):
        raise refusal("locality_weights", weights, "expected a mapping of localities to whole numbers")
    for place, weight in weights.items():
        locality = place if isinstance(place, Locality) else Locality.parse(text(place, "locality_weights"))
        parsed[locality] = whole(weight, f"locality_weights[{place}]", 0, MAX_WEIGHT)
    if sum(parsed.values()) > MAX_WEIGHT:
        raise InvalidSetting(f"locality_weights: their sum is {sum(parsed.values())}, expected at most {MAX_WEIGHT}")
    return parsed


def _local_hosts(policy: LocalityWeighted | ZoneAware | None, place: Locality | None) -> dict[Locality, int]:
    if policy is None or isinstance(policy, LocalityWeighted):
        return {}
    if not isinstance(policy, ZoneAware):
        raise InvalidSetting(f"locality_policy {policy!r}: expected None, LocalityWeighted or ZoneAware")
    if place is None:
        raise InvalidSetting("local_locality None: expected the locality of this process, because ZoneAware needs it")
    return _LOCAL_HOSTS(policy.local_hosts, "local_hosts")


def _setting(setting: S | None, kind: type[S], field: str) -> S | None:
    if setting is not None and not isinstance(setting, kind):
        raise refusal(field, setting, f"expected {kind.__name__} settings, or None")
    return setting


def _subsets(subsets: Subsets | None) -> Subsets:
    if subsets is not None and not isinstance(subsets, Subsets):
        raise refusal("subsets", subsets, "expected a Subsets, or None")
    return subsets or Subsets()


def _seed(seed: int | None) -> int:
    if seed is None:
        return int.from_bytes(os.urandom(8), "little")
    return whole(seed, "seed", 0, 2**64 - 1)


def _clock(clock: Callable[[], int] | None) -> Callable[[], int] | None:
    if clock is not None and not callable(clock):
        raise InvalidSetting(f"clock {clock!r}: expected a callable that returns nanoseconds, or None")
    return clock
