# How a Balancer comes to a new snapshot: built off to the side, then swapped in whole. Picks never see half of one.

cdef Snapshot build_snapshot(Balancer balancer, tuple endpoints, list owners, dict locality_weights, int64_t now):
    cdef SnapshotBuilder builder = SnapshotBuilder.__new__(SnapshotBuilder)
    builder.before = <Snapshot>balancer.snapshot
    builder.settings = balancer.settings
    builder.fleet = balancer.fleet
    builder.view = balancer.is_view
    builder.random = &balancer.draw.random
    builder.now = now
    builder.locality_weights = locality_weights
    builder.callers = balancer.callers
    builder.local_locality = balancer.local_locality
    return builder.build(endpoints, owners)


cdef void publish(Balancer balancer, Snapshot snapshot, uint32_t changes, int64_t now):
    """`changes`: those that the picker had been told of when building began. It stays stale where more came meanwhile."""
    old = balancer.snapshot     # lives until all pointers are the new snapshot's
    balancer.snapshot = snapshot
    balancer.link.stale = 0 if balancer.link.changes == changes else balancer.link.changes
    balancer.slots = snapshot.slots
    balancer.objects = tuple_items(snapshot.endpoints)
    if snapshot.board != NULL and not balancer.is_view:
        adopt_scoreboard(balancer.fleet, snapshot, now)
    set_direct_way(balancer)
    del old


cdef void set_direct_way(Balancer balancer):
    cdef Snapshot snapshot = <Snapshot>balancer.snapshot
    cdef bint native_clock = balancer.clock is None or type(balancer.clock) is VirtualClock
    balancer.direct = NULL if snapshot.ramp_end or balancer.timed or balancer.link.stale else snapshot.direct
    balancer.clocked = snapshot.direct if balancer.timed and native_clock and not balancer.link.stale else NULL
