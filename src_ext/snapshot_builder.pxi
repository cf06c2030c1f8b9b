# Builds a Snapshot out of the endpoints, their slots and the cluster's settings. All of it happens before the snapshot is
# published; an error leaves the old one in place.
#
# Order: within a priority endpoints stand by locality, localities in the order in which they first appear, as in the
# assignment that Envoy is sent; orders and rings are made from it, so they agree.


@cython.internal
@cython.final
cdef class SnapshotBuilder:
    cdef Snapshot snapshot
    cdef Snapshot before
    cdef ClusterSettings* settings
    cdef Fleet* fleet               # NULL where the policy learns nothing
    cdef bint view                  # of a cluster, whose slots and scoreboard it shares
    cdef uint64_t* random
    cdef int64_t now
    cdef dict locality_weights      # by locality; empty: localities have no weights
    cdef dict callers               # by locality; None unless routing by zone
    cdef object local_locality
    cdef list priorities            # of dicts: locality to its members
    cdef list hash_keys             # text by member; kept here while C reads it
    cdef set draining               # members that leave, by discovery's word or their own

    cdef Snapshot build(self, tuple endpoints, list owners):
        self.snapshot = Snapshot.__new__(Snapshot)
        self.read_endpoints(endpoints, owners)
        if self.fleet != NULL and self.fleet.introduce != NULL:
            self.place_endpoints()
        self.count_priorities()
        self.make_choices()
        self.find_direct_way()
        return self.snapshot

    cdef int read_endpoints(self, tuple endpoints, list owners) except -1:
        cdef Snapshot snapshot = self.snapshot
        cdef uint32_t count = <uint32_t>len(endpoints)
        cdef uint32_t i
        cdef int64_t window = self.settings.policy.ramp.window
        cdef Slot* slot
        cdef object endpoint, locality
        cdef object last_locality = None    # whose members `together` are; most endpoints stand beside their neighbours
        cdef list together = None
        cdef int health
        cdef uint32_t priority
        cdef uint32_t last_priority = 0
        snapshot.endpoints = endpoints
        snapshot.keys = []
        snapshot.orders = []
        snapshot.slots = <Slot**>calloc(count or 1, sizeof(Slot*))
        snapshot.availability = <uint8_t*>malloc(count or 1)
        snapshot.weights = <uint32_t*>malloc((count or 1) * sizeof(uint32_t))
        if snapshot.slots == NULL or snapshot.availability == NULL or snapshot.weights == NULL:
            raise MemoryError("no memory for a snapshot")
        snapshot.count = count
        self.priorities = []
        self.draining = set()
        for i in range(count):
            endpoint = endpoints[i]
            slot = (<SlotOwner>owners[i]).slot
            slot.refs += 1
            snapshot.slots[i] = slot
            snapshot.weights[i] = endpoint.weight
            health = endpoint.health
            snapshot.availability[i] = availability_of(health, slot)
            if health == 3 or slot.flags & EXCLUDED_BY_CHECK:
                self.draining.add(i)
            if window and slot.available_since + window > self.now:
                snapshot.ramp_end = max(snapshot.ramp_end, slot.available_since + window)
            priority = endpoint.priority
            locality = endpoint.locality
            if locality is not last_locality or priority != last_priority:
                while <uint32_t>len(self.priorities) <= priority:
                    self.priorities.append({})
                together = (<dict>self.priorities[priority]).setdefault(locality, [])
                last_locality = locality
                last_priority = priority
            together.append(i)
        if self.settings.policy.hashes_endpoints:
            self.hash_keys = [self.hash_key(endpoint) for endpoint in endpoints]
        return 0

    cdef int place_endpoints(self) except -1:
        self.snapshot.places = <uint32_t*>calloc(self.snapshot.count or 1, sizeof(uint32_t))
        if self.snapshot.places == NULL:
            raise MemoryError("no memory for a snapshot")
        if self.view:
            borrow_scoreboard(self.snapshot, self.fleet.board)
        else:
            lay_out_scoreboard(self.snapshot, self.priorities)
        return 0

    cdef str hash_key(self, object endpoint):
        # Envoy thread_aware_lb_impl.h hashKey(): metadata, then the hostname where it is asked for, then the address.
        cdef str key = endpoint.hash_key if endpoint.metadata else None
        if key is None and self.settings.policy.use_hostname_for_hashing:
            key = endpoint.hostname
        if not key:
            key = endpoint.address
            if key.startswith("unix:"):
                key = key[5:]
        return key

    cdef int count_priorities(self) except -1:
        cdef Snapshot snapshot = self.snapshot
        cdef uint32_t count = <uint32_t>len(self.priorities)
        cdef uint32_t priority
        cdef PriorityState* state
        snapshot.priorities = <PriorityState*>calloc(count or 1, sizeof(PriorityState))
        snapshot.choices = <Choice*>calloc((count or 1) * 2, sizeof(Choice))
        if snapshot.priorities == NULL or snapshot.choices == NULL:
            raise MemoryError("no memory for a snapshot's priorities")
        snapshot.priority_count = count
        for priority in range(count):
            state = &snapshot.priorities[priority]
            for members in (<dict>self.priorities[priority]).values():
                for member in members:
                    state.total += 1
                    state.healthy += snapshot.availability[<uint32_t>member] == HEALTHY
                    state.degraded += snapshot.availability[<uint32_t>member] == DEGRADED
                    state.excluded += member in self.draining
        if count:
            priority_loads(
                snapshot.priorities, count, self.settings.overprovisioning_factor, self.settings.panic_threshold
            )
        return 0

    cdef int make_choices(self) except -1:
        cdef Snapshot snapshot = self.snapshot
        cdef uint32_t percent = 0
        cdef uint32_t availability, priority, load
        for availability in range(2):
            for priority in range(snapshot.priority_count):
                load = snapshot.priorities[priority].healthy_load
                if availability == DEGRADED:
                    load = snapshot.priorities[priority].degraded_load
                if load == 0:
                    continue
                self.make_choice(&snapshot.choices[availability * snapshot.priority_count + priority], priority, availability)
                while load and percent < 100:
                    snapshot.by_percent[percent] = <uint16_t>(availability * snapshot.priority_count + priority)
                    percent += 1
                    load -= 1
        return 0

    cdef int make_choice(self, Choice* choice, uint32_t priority, uint32_t availability) except -1:
        if self.snapshot.priorities[priority].panic:
            if not self.settings.fail_traffic_on_panic:
                choice.selector = self.selector(priority, UNAVAILABLE, None)
            return 0
        if self.settings.policy.hashes:
            # The ring and the table know healthy endpoints only, whichever availability the priority was chosen for.
            choice.selector = self.selector(priority, HEALTHY, None)
        else:
            choice.selector = self.selector(priority, availability, None)
            if choice.selector != NULL:
                choice.localities = self.locality_stage(priority, availability, choice.selector)
        if choice.selector == NULL:
            choice.selector = self.somebody_else(priority)
        return 0

    cdef Selector* somebody_else(self, uint32_t priority) except? NULL:
        """Where Envoy would have nobody to give: the degraded endpoints of the priority, else of the first that has any."""
        cdef uint32_t other
        cdef Selector* selector = self.selector(priority, DEGRADED, None)
        for other in range(self.snapshot.priority_count):
            if selector == NULL:
                selector = self.selector(other, DEGRADED, None)
        return selector

    cdef list members_of(self, uint32_t priority, uint32_t availability, object locality):
        """Members in order; UNAVAILABLE stands for all of them, as in panic."""
        cdef Snapshot snapshot = self.snapshot
        cdef dict places = self.priorities[priority]
        cdef list found = []
        for members in places.values() if locality is None else (places[locality],):
            if availability == UNAVAILABLE:
                found += members
                continue
            for member in members:
                if snapshot.availability[<uint32_t>member] == availability:
                    found.append(member)
        return found

    cdef Selector* selector(self, uint32_t priority, uint32_t availability, object locality) except? NULL:
        """The selector of some members, made once; NULL where there are none."""
        cdef tuple key = (priority, availability, locality)
        cdef Selector* made = self.snapshot.selector_of(key)
        cdef Selector* old = NULL
        cdef Group* group
        if made != NULL:
            return made
        members = self.members_of(priority, availability, locality)
        shares = order = None
        if self.settings.policy.hashes_endpoints and members:
            members, shares = self.hash_shares(priority, members)
        if not members:
            return NULL
        if self.settings.policy.kind == JUMP:
            members = self.members_of(priority, UNAVAILABLE, locality)   # shards keep their numbers
        if self.before is not None:
            old = self.before.selector_of(key)
        group = self.group_of(members, shares)
        group.wanted = <Availability>availability
        try:
            if self.settings.policy.kind == RING_HASH and not self.settings.policy.ketama:
                order = [self.hash_keys[member] for member in members]
                if old != NULL:
                    self.follow(group, order, self.before.order_of(key))
            if self.settings.policy.hashes:
                with nogil:
                    made = policy_compile(&self.settings.policy, group, self.random, old)
            else:
                made = policy_compile(&self.settings.policy, group, self.random, old)
        finally:
            group_free(group)
        if made == NULL:
            raise MemoryError("no memory for a policy's tables")
        try:
            self.snapshot.own_selector(made, key, order)
        except MemoryError:
            made.free(made)
            raise
        return made

    cdef int follow(self, Group* group, list order, list before) except -1:
        """Says where each of the group stood in the group before; nothing where two have one hash key."""
        cdef dict places = {key: place for place, key in enumerate(before)}
        cdef uint32_t i
        if len(places) < len(before) or len(set(order)) < len(order):
            return 0
        group.previous = <int32_t*>malloc(group.count * sizeof(int32_t))
        group.gone = <uint32_t*>malloc(len(before) * sizeof(uint32_t))
        group.gone_keys = <const char**>malloc(len(before) * sizeof(char*))
        group.gone_key_sizes = <Py_ssize_t*>malloc(len(before) * sizeof(Py_ssize_t))
        if group.previous == NULL or group.gone == NULL or group.gone_keys == NULL or group.gone_key_sizes == NULL:
            raise MemoryError("no memory for a group of endpoints")
        for i in range(group.count):
            group.previous[i] = places.pop(order[i], -1)
        for key, place in places.items():
            i = group.gone_count
            group.gone[i] = place
            group.gone_keys[i] = PyUnicode_AsUTF8AndSize(key, &group.gone_key_sizes[i])
            group.gone_count += 1
        return 0

    cdef Group* group_of(self, list members, list shares) except NULL:
        cdef Snapshot snapshot = self.snapshot
        cdef uint32_t count = <uint32_t>len(members)
        cdef Group* group = group_new(count, shares is not None)
        cdef uint32_t i, member
        cdef const SlowStartRamp* ramp = &self.settings.policy.ramp
        group.equal_weights = True
        group.equal_localities = not self.settings.locality_weighted or not self.locality_weights
        group.availability = snapshot.availability
        group.board = snapshot.board
        try:
            if snapshot.board != NULL:
                group.places = <uint32_t*>malloc((count or 1) * sizeof(uint32_t))
                if group.places == NULL:
                    raise MemoryError("no memory for a group of endpoints")
            for i in range(count):
                member = members[i]
                group.members[i] = member
                group.slots[i] = snapshot.slots[member]
                group.weights[i] = snapshot.weights[member]
                if group.places != NULL:
                    group.places[i] = snapshot.places[member]
                if group.weights[i] != group.weights[0]:
                    group.equal_weights = False
                if ramp.window and self.now < group.slots[i].available_since + ramp.window:
                    group.ramping = True
                if shares is not None:
                    group.shares[i] = shares[i]
                    group.hash_keys[i] = PyUnicode_AsUTF8AndSize(self.hash_keys[member], &group.hash_key_sizes[i])
        except BaseException:
            group_free(group)
            raise
        return group

    cdef tuple hash_shares(self, uint32_t priority, list members):
        """Each member's share of the keys (thread_aware_lb_impl.cc: normalizeWeights), and the members that have one."""
        cdef Snapshot snapshot = self.snapshot
        cdef uint64_t total = 0
        cdef uint32_t member
        if not self.settings.locality_weighted or not self.locality_weights:
            for each in members:
                total += snapshot.weights[<uint32_t>each]
            return members, [snapshot.weights[<uint32_t>each] * 1.0 / total for each in members]
        chosen = set(members)
        places = self.ordered_localities(priority)
        all_weights = sum([self.locality_weights.get(place, 0) for place in places])
        ordered, shares = [], []
        for place in places:
            here = [each for each in self.priorities[priority][place] if each in chosen]
            share = self.locality_weights.get(place, 0) / all_weights if all_weights else 0.0
            if share == 0.0:
                continue
            total = 0
            for each in here:
                total += snapshot.weights[<uint32_t>each]
            ordered += here
            shares += [snapshot.weights[<uint32_t>each] * <double>share / total for each in here]
        return ordered, shares

    cdef list ordered_localities(self, uint32_t priority):
        """The caller's own first, the others by name: Envoy's order of localities (LocalityLess)."""
        return sorted((<dict>self.priorities[priority]), key=lambda place: (place != self.local_locality, place))

    cdef LocalityStage* locality_stage(self, uint32_t priority, uint32_t availability, Selector* anywhere) except? NULL:
        """NULL where localities do not matter."""
        cdef LocalityStage* stage
        cdef LocalityCount* counts
        cdef uint32_t i, count
        cdef bint built = True
        by_weight = self.settings.locality_weighted and len(self.locality_weights) > 0
        if not by_weight and not self.routes_by_zone(priority):
            return NULL
        places = self.ordered_localities(priority)
        count = <uint32_t>len(places)
        stage = locality_stage_new(count, anywhere)
        counts = <LocalityCount*>calloc(count, sizeof(LocalityCount))
        if stage == NULL or counts == NULL:
            locality_stage_free(stage)
            free(counts)
            raise MemoryError("no memory for a snapshot's localities")
        try:
            self.snapshot.own_stage(stage)
            for i in range(count):
                stage.selectors[i] = self.selector(priority, availability, places[i])
                counts[i].total = <uint32_t>len([m for m in self.priorities[priority][places[i]] if m not in self.draining])
                if by_weight:
                    counts[i].eligible = 0 if stage.selectors[i] == NULL else stage.selectors[i].count
                    counts[i].weight = self.locality_weights.get(places[i], 0)
                else:
                    # Envoy measures zones by healthy endpoints, also when it then picks degraded ones.
                    healthy = self.members_of(priority, HEALTHY, places[i])
                    counts[i].eligible = <uint32_t>len(healthy)
                    counts[i].capacity = counts[i].eligible
                    if self.settings.zone_aware.by_weight:
                        counts[i].capacity = sum([self.snapshot.weights[<uint32_t>each] for each in healthy])
                    counts[i].callers = self.callers.get(places[i], 0)
            if by_weight:
                built = locality_weighted_set(stage, counts, self.settings.overprovisioning_factor, self.random)
            else:
                zone_aware_set(stage, counts, places[0] == self.local_locality, &self.settings.zone_aware)
        finally:
            free(counts)
        if not built:
            raise MemoryError("no memory for a snapshot's localities")
        return stage

    cdef bint routes_by_zone(self, uint32_t priority) except -1:
        """Envoy's earlyExitNonLocalityRouting, turned round."""
        cdef ZoneAwareSettings* zone = &self.settings.zone_aware
        if self.callers is None or len(self.priorities[priority]) < 2:
            return False
        if zone.caller_localities < 2 and zone.force_local_zone_min_size < 0:
            return False
        if self.callers.get(self.local_locality, 0) == 0:
            return False
        return self.snapshot.priorities[priority].healthy >= zone.min_cluster_size

    cdef int find_direct_way(self) except -1:
        cdef Snapshot snapshot = self.snapshot
        cdef Choice* choice
        cdef uint32_t i
        snapshot.pure = self.settings.policy.hashes and not self.settings.policy.hash_balance_factor
        if snapshot.priority_count == 0:
            return 0
        choice = &snapshot.choices[snapshot.by_percent[0]]
        for i in range(1, 100):
            if snapshot.by_percent[i] != snapshot.by_percent[0]:
                return 0
        if choice.localities == NULL:
            snapshot.direct = choice.selector
        return 0


cdef inline uint8_t availability_of(int health, const Slot* slot) noexcept nogil:
    if slot.flags & (FAILED_ACTIVE_CHECK | EJECTED) or said_out(health):
        return UNAVAILABLE
    return DEGRADED if health == 5 or slot.flags & DEGRADED_ACTIVE_CHECK else HEALTHY


cdef inline bint said_out(int health) noexcept nogil:
    """By discovery; health as in core/v3/health_check.proto: only UNKNOWN, HEALTHY and DEGRADED serve."""
    return not (health == 0 or health == 1 or health == 5)
