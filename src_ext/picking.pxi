# How a Balancer finds the member for a request: straight by the snapshot's only selector wherever there is one, else
# through priorities and localities, once its snapshot and the time are up to date.

cdef inline int32_t choose_member(Balancer balancer, uint64_t hash) except -2:
    """A member, or NO_MEMBER."""
    cdef Selector* selector = balancer.direct
    if lb_unlikely(selector == NULL):
        selector = select_for(balancer, hash)
        if selector == NULL:
            return NO_MEMBER
    return selector.choose(selector, &balancer.draw, hash)


cdef Selector* select_for(Balancer balancer, uint64_t hash) except? NULL:
    """The selector that serves a pick; NULL where there is nobody to give."""
    cdef Snapshot snapshot
    cdef int64_t now
    while True:
        renew(balancer)
        if balancer.direct != NULL:
            return balancer.direct
        snapshot = <Snapshot>balancer.snapshot
        if not snapshot.ramp_end and not balancer.timed:
            break
        now = read_clock(balancer)
        if <Snapshot>balancer.snapshot is snapshot and not balancer.link.stale:   # else the caller's clock let an update in
            balancer.draw.now = now
            if balancer.timed:
                fleet_refresh(balancer.fleet, now)
            if snapshot.ramp_end and now >= snapshot.ramp_end:
                snapshot.ramp_end = 0
                set_direct_way(balancer)
            break
    if snapshot.direct != NULL:
        return snapshot.direct
    if snapshot.priority_count == 0:
        return NULL
    return snapshot_select(snapshot, &balancer.draw, hash if balancer.hashing else random_bits(&balancer.draw.random))


cdef inline int renew(Balancer balancer) except -1:
    if lb_unlikely(balancer.link.stale != 0):
        balancer._renew()
    return 0


cdef inline int64_t read_native_clock(Balancer balancer) noexcept:
    """Nanoseconds; only where the clock is no Python callable."""
    return monotonic_ns() if balancer.clock is None else (<VirtualClock>balancer.clock).now


cdef int64_t read_clock(Balancer balancer) except? -1:
    """Nanoseconds."""
    if balancer.clock is None or type(balancer.clock) is VirtualClock:
        return read_native_clock(balancer)
    return balancer.clock()


cdef inline uint64_t pick_hash(Balancer balancer, object key) except? 0:
    if key is None:
        return random_bits(&balancer.draw.random) if balancer.hashing else 0
    return key_hash(key, balancer.hashing)


cdef inline Lease lease_new(Balancer balancer, int32_t member):
    cdef Lease lease = Lease.__new__(Lease)
    lease.slot = slot_begin(balancer.slots[member])
    lease.endpoint = <object>balancer.objects[member]
    lease.started = -1
    if lb_unlikely(balancer.timed):
        lease.balancer = balancer
        lease.started = balancer.draw.now
        lease.met = slot_sent(lease.slot, lease.started)
    return lease
