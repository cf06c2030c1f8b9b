# Why a pick goes where it goes: the same stages as a pick, walked without consuming random numbers or moving a cursor.


cdef dict explain_pick(Balancer balancer, object key, Py_ssize_t probes):
    found = None
    while found is None:
        found = explain_snapshot(balancer, key, probes)
    return found


cdef dict explain_snapshot(Balancer balancer, object key, Py_ssize_t probes):
    """None where an update came while the caller's clock was read."""
    cdef Snapshot snapshot = <Snapshot>balancer.snapshot
    cdef Draw kept = balancer.draw
    cdef uint64_t uncounted = balancer.fleet.uncounted if balancer.fleet != NULL else 0
    cdef int64_t active = balancer.fleet.active if balancer.fleet != NULL else 0
    cdef uint64_t hash = pick_hash(balancer, key)
    cdef uint64_t stage_hash = hash
    cdef Selector* selector
    cdef Choice* choice = NULL
    cdef uint32_t i, index
    cdef list cursors = keep_cursors(snapshot)
    cdef dict found = {
        "hash": hash if balancer.hashing else None, "percent": None, "priority": None, "degraded": None,
        "locality_shares": None, "candidates": [], "probes": [], "winner": None,
        "endpoints": snapshot.endpoints, "priorities": priority_values(snapshot),
    }
    try:
        if snapshot.priority_count:
            if not balancer.hashing:
                stage_hash = random_bits(&balancer.draw.random)
            index = snapshot.by_percent[stage_hash % 100]
            choice = &snapshot.choices[index]
            found["percent"] = stage_hash % 100 + 1
            found["priority"] = index % snapshot.priority_count
            found["degraded"] = index >= snapshot.priority_count
            if choice.localities != NULL:
                found["locality_shares"] = locality_shares(balancer, snapshot, index % snapshot.priority_count, choice.localities)
        balancer.draw = kept
        selector = select_for(balancer, hash)
        if <Snapshot>balancer.snapshot is not snapshot:
            return None
        if selector != NULL:
            found["candidates"] = [
                (
                    selector.members[i], selector.weights[i], selector.slots[i].active,
                    selector.score(selector, i, balancer.draw.now) if selector.score != NULL else None,
                    fleet_learned(balancer.fleet, selector.slots[i]),
                )
                for i in range(selector.count)
                if selector_may_use(selector, i)
            ]
            winner = selector.choose(selector, &balancer.draw, hash)
            found["winner"] = winner if winner >= 0 else None
            if selector.attempt != NULL:
                for i in range(<uint32_t>min(probes, <Py_ssize_t>selector.count)):
                    member = selector.attempt(selector, hash, i)
                    if member >= 0:
                        found["probes"].append(member)
    finally:
        balancer.draw = kept
        if balancer.fleet != NULL:
            balancer.fleet.uncounted = uncounted
            balancer.fleet.active = active
        return_cursors(snapshot, cursors)
    return found


cdef list keep_cursors(Snapshot snapshot):
    cdef uint32_t i
    return [
        [snapshot.selectors[i].cursor for i in range(snapshot.selector_count)],
        [snapshot.stages[i].cursor for i in range(snapshot.stage_count)],
    ]


cdef int return_cursors(Snapshot snapshot, list kept) except -1:
    cdef uint32_t i
    for i, cursor in enumerate(kept[0]):
        snapshot.selectors[i].cursor = cursor
    for i, cursor in enumerate(kept[1]):
        snapshot.stages[i].cursor = cursor
    return 0


cdef dict locality_shares(Balancer balancer, Snapshot snapshot, uint32_t priority, LocalityStage* stage):
    """Part of the priority's traffic by locality, 0.0 to 1.0."""
    cdef uint32_t i
    cdef double rest
    cdef uint64_t previous = 0
    cdef list parts = [0.0] * stage.count
    places = sorted(
        {endpoint.locality for endpoint in snapshot.endpoints if endpoint.priority == priority},
        key=lambda place: (place != balancer.local_locality, place),
    )
    if stage.choose == locality_by_weight:
        for i in range(stage.schedule.length):
            parts[stage.schedule.order[i]] += 1.0 / stage.schedule.length
    elif stage.choose == locality_by_zone:
        rest = 1.0 - stage.local_share / 10000.0
        parts[0] = stage.local_share / 10000.0
        for i in range(stage.count):
            if stage.residual[stage.count - 1]:
                parts[i] += rest * (stage.residual[i] - previous) / <double>stage.residual[stage.count - 1]
                previous = stage.residual[i]
            else:
                parts[i] += rest / stage.count
    return dict(zip(places, parts))
