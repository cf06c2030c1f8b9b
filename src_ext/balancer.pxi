# The Balancer: slots, current snapshot, random state, clock. `Cluster` (lbcore/cluster.py) subclasses it and so inherits
# the hot methods as they are: a Python frame around a pick would cost more than the pick.
#
# Everything here runs under the GIL unless it says otherwise. A pick never releases it, so plain counters are exact and
# no snapshot is freed under a pick; a batch that runs without the GIL holds a reference to its snapshot.


cdef struct ClusterSettings:
    PolicySettings policy
    uint32_t overprovisioning_factor    # percent
    uint32_t panic_threshold            # percent, whole
    bint fail_traffic_on_panic
    bint locality_weighted
    ZoneAwareSettings zone_aware


cdef list priority_values(Snapshot snapshot):
    cdef PriorityState* state
    cdef uint32_t i
    values = []
    for i in range(snapshot.priority_count):
        state = &snapshot.priorities[i]
        values.append((
            state.total, state.healthy, state.degraded, state.excluded,
            state.healthy_load, state.degraded_load, bool(state.panic),
        ))
    return values


cdef class Balancer:
    """Picks endpoints; the native base of `Cluster`."""

    def __cinit__(self):
        self.settings = <ClusterSettings*>calloc(1, sizeof(ClusterSettings))
        if self.settings == NULL:
            raise MemoryError("no memory for a cluster's settings")
        cdef Totals* totals = totals_new()
        self.link.direct = &self.direct
        self.link.clocked = &self.clocked
        share_totals(self, totals)
        totals_release(totals)
        self.owners = {}
        self.departed = {}
        self.locality_weights = {}
        self.snapshot = Snapshot.__new__(Snapshot)
        (<Snapshot>self.snapshot).endpoints = ()
        (<Snapshot>self.snapshot).keys = []
        (<Snapshot>self.snapshot).orders = []

    def __dealloc__(self):
        free(self.settings)
        if self.totals != NULL:
            if self.totals.detector != NULL and self.totals.detector.cluster == <void*>self:
                self.totals.detector.cluster = NULL
            leave_totals(self)

    def pick(self, key=None, exclude=None):
        """The endpoint for this request, or for this key where the policy hashes.

        Args:
            key: str or bytes (XXH64 of it, seed 0), or an int: the 64-bit hash itself. Without one a hash policy picks
                at random; the other policies ignore it.
            exclude: an Endpoint or an address not to pick, or several: those that have failed before this retry.

        Raises NoEndpointAvailable, saying why; TypeError or ValueError at a key that is none.
        """
        cdef uint64_t hash = 0
        cdef int32_t member
        if key is not None or self.hashing:
            hash = pick_hash(self, key)
        member = choose_member(self, hash) if exclude is None else choose_excluding(self, hash, exclude)
        if lb_unlikely(member < 0):
            raise self._none_available(exclude)
        return <object>self.objects[member]

    def acquire(self, key=None, exclude=None):
        """Picks, and counts the request as in flight until `Lease.done`. Arguments and errors as of `pick`.

        Raises Overloaded besides, where a circuit breaker is open.
        """
        cdef uint64_t hash = 0
        cdef int32_t member
        if key is not None or self.hashing:
            hash = pick_hash(self, key)
        if lb_unlikely(self.totals.active >= self.totals.free_until):
            member = choose_within_limits(self, hash, exclude)
        else:
            member = choose_member(self, hash) if exclude is None else choose_excluding(self, hash, exclude)
        if lb_unlikely(member < 0):
            raise self._none_available(exclude)
        return lease_new(self, member)

    def pick_many(self, keys_or_n, out=None):
        """Many picks at once, equal to the same picks one by one.

        Args:
            keys_or_n: how many, or the keys: a one-dimensional integer array of hashes, or a sequence of what `pick`
                takes.
            out: a contiguous int32 array of that length to write to, instead of a new one.

        Returns an int32 array of positions in `endpoints`, -1 where none is available. Raises TypeError and ValueError
        at keys as `pick` does, and at an `out` that does not fit.
        """
        renew(self)
        return pick_batch(self, keys_or_n, out)

    def rank(self, key, k, exclude=None):
        """Up to k distinct endpoints in order of preference; the first is what `pick(key, exclude)` gives.

        Raises NoEndpointAvailable, and ValueError unless k >= 1.
        """
        if type(k) is not int or k < 1:
            raise ValueError(f"k {k!r}: expected a whole number, 1 or more")
        ranked = rank_excluding(self, pick_hash(self, key), min(k, INT32_LARGEST), exclude)
        if not ranked:
            raise self._none_available(exclude)
        endpoints = (<Snapshot>self.snapshot).endpoints
        return [endpoints[member] for member in ranked]

    @property
    def endpoints(self):
        """All endpoints, in the order given; `pick_many` returns positions in it."""
        renew(self)
        return (<Snapshot>self.snapshot).endpoints

    cdef int32_t choose(self, uint64_t hash) except -1:
        cdef int32_t member = choose_member(self, hash)
        if member < 0:
            raise self._none_available(None)
        return member

    cdef int32_t choose_any(self) except -1:
        return self.choose(random_bits(&self.draw.random) if self.hashing else 0)

    cdef int32_t choose_without_gil(self, uint64_t hash) noexcept nogil:
        cdef Selector* selector = <Selector*>load_pointer(<void**>&self.direct)
        return selector.choose(selector, &self.draw, hash) if selector != NULL else NO_MEMBER

    cdef Slot* begin(self, int32_t member) noexcept:
        cdef Slot* slot = slot_begin(self.slots[member])
        self.draw.met = slot_sent(slot, self.draw.now)
        return slot

    cdef void end(self, Slot* slot, bint ok) noexcept:
        cdef Outcome outcome = Outcome(ok=ok, status=0, now=0, latency=-1, met=-1, load=NULL)
        slot_finish(slot, &outcome)

    cdef void end_with(self, Slot* slot, const Outcome* outcome) noexcept:
        slot_finish(slot, outcome)

    # What follows is for `Cluster`, which validates.

    def _set_up(self, policy, settings, seed, clock):
        """Settings that hold for the cluster's life. `settings` is a `_core`-independent mapping built by Cluster."""
        policy_read(&self.settings.policy, type(policy).__name__, policy)
        policy_learn(&self.settings.policy, self.totals, seed)
        self.fleet = self.totals.fleet
        self.timed = self.fleet != NULL
        self.utilization_metrics = getattr(policy, "metric_names_for_computing_utilization", None)
        self.hashing = NO_KEYS
        if self.settings.policy.hashes:
            self.hashing = MD5_KEYS if self.settings.policy.ketama else XXH64_KEYS
        self.settings.overprovisioning_factor = settings["overprovisioning_factor"]
        self.settings.panic_threshold = settings["panic_threshold"]
        self.settings.fail_traffic_on_panic = settings["fail_traffic_on_panic"]
        self.settings.locality_weighted = settings["locality_weighted"]
        self.local_locality = settings["local_locality"]
        self.clock = clock
        self.draw.random = seed
        zone = settings["zone_aware"]
        if zone is not None:
            self.settings.fail_traffic_on_panic |= zone.fail_traffic_on_panic
            self.settings.zone_aware.routing_enabled = int(zone.routing_enabled)
            self.settings.zone_aware.min_cluster_size = zone.min_cluster_size
            self.settings.zone_aware.force_local_zone_min_size = (
                -1 if zone.force_local_zone_min_size is None else zone.force_local_zone_min_size
            )
            self.settings.zone_aware.by_weight = zone.locality_basis == "healthy_hosts_weight"
            self._set_local_hosts(settings["local_hosts"])
        self.breakers = circuit_breakers_set(self.totals, settings["circuit_breakers"])
        if settings["outlier_detection"] is not None:
            self.totals.detector = outlier_detector_new(self, settings["outlier_detection"], seed)
            self.totals.detector.next_sweep = read_clock(self) + self.totals.detector.interval
            self.totals.observe_health = outlier_observe_grpc if self.totals.detector.as_grpc else outlier_observe

    def _set_local_hosts(self, dict callers):
        """How many callers are in each locality; counts from the next snapshot on."""
        self.callers = callers
        self.settings.zone_aware.caller_localities = sum([1 for count in callers.values() if count])
        self.settings.zone_aware.callers = sum(callers.values())

    def _install(self, tuple endpoints, dict locality_weights):
        """Publishes new membership. Slots are kept by address; those of endpoints gone stay while requests are in flight."""
        cdef int64_t now = read_clock(self)
        cdef uint32_t changes = self.link.changes
        cdef dict owners = {}
        cdef list in_order = []
        cdef SlotOwner owner
        for endpoint in endpoints:
            address = endpoint.address
            owner = self.owners.get(address)
            if owner is None:
                owner = self.departed.get(address) or own_slot(self.totals, now)
                # Whoever joins, or joins again, starts anew in all but its counts.
                slot_reset(owner.slot, now)
            owners[address] = owner
            in_order.append(owner)
        departed = {
            address: gone
            for address, gone in {**self.departed, **self.owners}.items()
            if address not in owners and (<SlotOwner>gone).slot.active > 0
        }
        snapshot = build_snapshot(self, endpoints, in_order, locality_weights, now)
        for address, gone in self.owners.items():
            if address not in owners:
                outlier_departs((<SlotOwner>gone).slot)
        for endpoint, owner in zip(endpoints, in_order):
            outlier_stays(owner.slot, endpoint)
        self.owners = owners
        self.departed = departed
        self.locality_weights = locality_weights
        publish(self, snapshot, changes, now)
        views_become_stale(self)

    def _share(self, Balancer parent, local_locality):
        """Makes this a view of another balancer's endpoints: its settings, its totals, its clock. Stale at first."""
        leave_totals(self)
        share_totals(self, parent.totals)
        self.breakers = parent.breakers
        self.hashing = parent.hashing
        self.timed = parent.timed
        self.fleet = parent.fleet
        self.is_view = True
        self.utilization_metrics = parent.utilization_metrics
        self.clock = parent.clock
        self.local_locality = local_locality
        self.draw.random = random_bits(&parent.draw.random)
        self._become_stale()

    def _staleness(self):
        """0 while up to date; else what `_install_shared` wants to hear, read before the endpoints are."""
        return self.link.stale

    def _install_shared(self, Balancer parent, tuple endpoints, dict locality_weights, uint32_t staleness):
        """Publishes some of the parent's endpoints, in its slots. Stays stale where the parent has changed meanwhile."""
        cdef int64_t now = read_clock(self)
        self.settings[0] = parent.settings[0]
        self.callers = parent.callers
        owners = parent.owners
        in_order = []
        for endpoint in endpoints:
            owner = owners.get(endpoint.address)
            if owner is None:
                return
            in_order.append(owner)
        snapshot = build_snapshot(self, endpoints, in_order, locality_weights, now)
        self.owners = owners
        self.locality_weights = locality_weights
        publish(self, snapshot, staleness, now)

    def _become_stale(self):
        become_stale(&self.link)

    def _renew(self):
        """Called before the next use, after a change of health that came as a request ended. Views have their own.

        No lock is taken, because an update may hold it and call the clock: threads that come at once each build one, and
        what has been overtaken is dropped.
        """
        while self.link.stale:
            self._refresh()

    def _refresh(self):
        """Builds the snapshot anew from the same endpoints."""
        cdef int64_t now = read_clock(self)
        cdef Snapshot current = <Snapshot>self.snapshot
        cdef uint32_t changes = self.link.changes
        in_order = [self.owners[endpoint.address] for endpoint in current.endpoints]
        snapshot = build_snapshot(self, current.endpoints, in_order, self.locality_weights, now)
        if <Snapshot>self.snapshot is current:
            publish(self, snapshot, changes, now)

    def _set_health(self, str address, bint healthy, bint degraded, bint excluded, bint checked):
        """`checked`: a check has just said so, which ends an ejection. KeyError where there is no such endpoint."""
        cdef int64_t now = read_clock(self)
        cdef SlotOwner owner = self.owners[address]
        cdef Slot* slot = owner.slot
        cdef uint32_t said = 0
        cdef uint32_t before = slot.flags & (FAILED_ACTIVE_CHECK | DEGRADED_ACTIVE_CHECK | EXCLUDED_BY_CHECK)
        if not healthy:
            said = FAILED_ACTIVE_CHECK | (EXCLUDED_BY_CHECK if excluded else 0)
        elif degraded:
            said = DEGRADED_ACTIVE_CHECK
        if healthy and checked:
            return_by_check(slot, now)
        if said == before:
            return
        if healthy and before & FAILED_ACTIVE_CHECK:
            slot.available_since = now
        slot.flags = (slot.flags & ~before) | said
        health_has_changed(self)

    def _passed_check(self, str address):
        cdef SlotOwner owner = self.owners.get(address)
        if owner is not None and owner.slot.flags & EJECTED:
            return_by_check(owner.slot, read_clock(self))

    def _observe(self, str address, load, latency):
        """What a probe has found, to the policy if it asks for it. KeyError where there is no such endpoint."""
        cdef Load report
        cdef int64_t taken = -1 if latency is None else latency_ns(latency)
        cdef int64_t now = read_clock(self)
        cdef SlotOwner owner
        load_read(&report, load, self.utilization_metrics)
        owner = self.owners[address]
        if self.fleet != NULL and self.fleet.probed != NULL:
            self.fleet.probed(owner.slot, &report, taken, now, <uint32_t>len(self.owners))

    def _sweep(self):
        """Outlier detection's interval work, if it is due."""
        cdef int64_t now
        if self.totals.detector != NULL:
            now = read_clock(self)
            if sweep_is_due(self.totals.detector, now):
                outlier_sweep(<Snapshot>self.snapshot, self.totals.detector, now)

    def _refresh_learned(self):
        """What a load-aware policy has to do as time passes, if it is due."""
        if self.fleet != NULL:
            fleet_refresh(self.fleet, read_clock(self))

    def _end_ramps(self):
        """Where slow starts ended since the snapshot was built, a plainer one will do."""
        cdef Snapshot snapshot = <Snapshot>self.snapshot
        if self.settings.policy.ramp.window > 0 and snapshot.ramp_end > 0 and read_clock(self) >= snapshot.ramp_end:
            health_has_changed(self)

    def _slot_values(self):
        """For each endpoint: itself, availability, cause of its latest ejection, then the rest of `EndpointStats`."""
        cdef Snapshot snapshot
        cdef Slot* slot
        cdef uint32_t i
        values = []
        renew(self)
        snapshot = <Snapshot>self.snapshot
        for i in range(snapshot.count):
            slot = snapshot.slots[i]
            values.append((
                snapshot.endpoints[i], snapshot.availability[i], ejection_cause(slot), slot.active, slot.requests, slot.successes, slot.failures,
                slot.latency_total / slot.latency_count if slot.latency_count else None,
                bool(slot.flags & FAILED_ACTIVE_CHECK), *ejection_values(slot), fleet_learned(self.fleet, slot),
            ))
        return values

    def _explain(self, key, probes):
        """What `Explanation` is made of (explaining.pxi)."""
        renew(self)
        return explain_pick(self, key, probes)

    def _fleet_learned(self):
        """What `FleetLearned` says (lbcore/stats.py); None where the policy has nothing to tell."""
        return fleet_learned(self.fleet, NULL)

    def _outlier_values(self):
        """What `OutlierDetectionStats` says (lbcore/stats.py); None without outlier detection."""
        return None if self.totals.detector == NULL else outlier_values(self.totals.detector)

    def _outlier_events(self):
        """Ejections and returns since it was last asked (outlier_events.pxi); none where they are not kept."""
        if self.totals.detector == NULL or self.totals.detector.event_count == 0:
            return []
        return outlier_events_taken(self.totals.detector)

    def _breakers(self):
        """The breakers of waiting requests, retries and connections."""
        return self.breakers

    def _request_values(self):
        """Of the breaker of requests: limit, active, refused."""
        return self.totals.max_requests, self.totals.active, self.totals.refused

    def _now(self):
        """Nanoseconds of the cluster's clock."""
        return read_clock(self)

    def _active(self):
        """Requests in flight, those to endpoints that are gone included."""
        return self.totals.active

    def _priority_values(self):
        """For each priority: total, healthy, degraded, healthy load, degraded load, panic."""
        renew(self)
        return priority_values(<Snapshot>self.snapshot)
