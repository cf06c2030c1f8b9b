# Fallbacks in order: distinct endpoints, the first being what a pick gives. A hash policy goes on along the key's own
# order (Envoy's retry attempts); the others pick again without those already named. When the group that serves the pick is
# exhausted, the rest of the usable endpoints follow: same priority first, then the next.

cdef enum: ATTEMPTS_AN_ENDPOINT = 64     # of a key's own order, before the rest is taken as it stands


@cython.internal
@cython.final
cdef class Ranking:
    cdef list members
    cdef set seen
    cdef Py_ssize_t wanted

    cdef bint take(self, int32_t member) except -1:
        """Adds a member not named yet; returns whether enough are."""
        if member >= 0 and member not in self.seen:
            self.seen.add(member)
            self.members.append(member)
        return len(self.members) >= self.wanted


cdef list rank_members(Balancer balancer, uint64_t hash, Py_ssize_t wanted, set excluded):
    """Members in order of preference, without the excluded ones."""
    cdef Ranking ranking = Ranking.__new__(Ranking)
    cdef Selector* selector = select_for(balancer, hash)
    cdef Snapshot snapshot = <Snapshot>balancer.snapshot
    cdef uint32_t attempt, limit
    ranking.members = []
    ranking.seen = excluded
    ranking.wanted = wanted
    if selector == NULL:
        return ranking.members
    if ranking.take(selector.choose(selector, &balancer.draw, hash)):
        return ranking.members
    limit = <uint32_t>min(<uint64_t>selector.count * ATTEMPTS_AN_ENDPOINT, <uint64_t>0xFFFFFFFFU)
    for attempt in range(1, limit):
        if len(ranking.members) == selector.count:
            break
        if selector.attempt != NULL:
            if ranking.take(selector.attempt(selector, hash, attempt)):
                return ranking.members
        elif ranking.members or selector.scans:
            break
        # Nothing but excluded endpoints so far: a pick by weight or load is simply made again, as Envoy's retries do.
        elif ranking.take(selector.choose(selector, &balancer.draw, hash)):
            return ranking.members
    rank_the_rest(balancer, snapshot, selector, ranking)
    return ranking.members


cdef set excluded_addresses(object exclude):
    """Of one Endpoint or address, or several."""
    if isinstance(exclude, str) or hasattr(exclude, "address"):
        exclude = (exclude,)
    try:
        return {each if isinstance(each, str) else each.address for each in exclude}
    except (TypeError, AttributeError):
        raise TypeError(f"exclude {exclude!r}: expected an Endpoint or an address, or several") from None


cdef set members_of(Snapshot snapshot, set addresses):
    """Positions of those endpoints; addresses of others say nothing."""
    cdef uint32_t i
    members = set()
    for i in range(snapshot.count):
        if (<object>snapshot.endpoints[i]).address in addresses:
            members.add(<int32_t>i)
    return members


cdef int32_t choose_excluding(Balancer balancer, uint64_t hash, object exclude) except -2:
    ranked = rank_excluding(balancer, hash, 1, exclude)
    return <int32_t>ranked[0] if ranked else NO_MEMBER


cdef list rank_excluding(Balancer balancer, uint64_t hash, Py_ssize_t wanted, object exclude):
    """Members of the current snapshot in order of preference, without those excluded by address."""
    cdef Snapshot snapshot
    cdef set addresses = set() if exclude is None else excluded_addresses(exclude)
    while True:
        renew(balancer)
        snapshot = <Snapshot>balancer.snapshot
        ranked = rank_members(balancer, hash, wanted, members_of(snapshot, addresses) if addresses else set())
        if <Snapshot>balancer.snapshot is snapshot:     # else the caller's clock let an update in
            return ranked


cdef inline double load_at(Balancer balancer, Selector* selector, uint32_t position) noexcept:
    if selector.score != NULL:
        return selector.score(selector, position, balancer.draw.now)
    return selector.slots[position].active / <double>selector.weights[position]


cdef int rank_the_rest(Balancer balancer, Snapshot snapshot, Selector* selector, Ranking ranking) except -1:
    """The group's other members by load, equals in random order; then all that are usable, by priority and health."""
    cdef uint32_t i
    rest = [
        (load_at(balancer, selector, i), random_bits(&balancer.draw.random), selector.members[i])
        for i in range(selector.count)
        if selector_may_use(selector, i)
    ]
    rest.sort()
    for _, _, member in rest:
        if ranking.take(member):
            return 0
    usable = []
    for i in range(snapshot.count):
        if snapshot.availability[i] != UNAVAILABLE:
            usable.append(((<object>snapshot.endpoints[i]).priority, snapshot.availability[i], i))
    usable.sort()
    for _, _, member in usable:
        if ranking.take(member):
            return 0
    return 0
