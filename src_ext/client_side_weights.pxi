# Client-side weighted round robin: each endpoint's weight is what its own reports say it can carry,
#
#     requests per second / (utilization + errors / requests * error_utilization_penalty)
#
# and picks go round by a smooth schedule of these weights. An endpoint whose reports are too new (`blackout_period`) or too
# old (`weight_expiration_period`), or too few to tell, gets the mean of the others' weights. References: gRFC A58; Envoy
# orca_weight_manager.cc (where it gets the median).
#
# The weights are the fleet's, computed anew once in `weight_update_period`; each selector makes its own schedule of them
# when it is next used. Without two known weights it is plain round robin over the endpoints' own weights.

cdef enum: TURNS = 65536    # of a schedule, as long as endpoints are no more than some thousands: it is made every second

cdef struct WeightedFleet:
    Fleet base
    int64_t blackout_period             # ns
    int64_t weight_expiration_period    # ns
    int64_t weight_update_period        # ns
    double error_utilization_penalty
    uint64_t version                    # of the weights
    int64_t now                         # ns; when they were computed

cdef struct WeightedSelector:
    Selector base
    Schedule turns                      # positions in the group
    uint64_t version                    # of the weights that they were made from
    SlowStartRamp ramp


cdef Fleet* weighted_fleet(const PolicySettings* settings) noexcept nogil:
    cdef WeightedFleet* fleet = <WeightedFleet*>calloc(1, sizeof(WeightedFleet))
    if fleet == NULL:
        return NULL
    fleet.base.free = fleet_free
    fleet.base.refresh = weighted_refresh
    fleet.blackout_period = settings.blackout_period
    fleet.weight_expiration_period = settings.weight_expiration_period
    fleet.weight_update_period = settings.weight_update_period
    fleet.error_utilization_penalty = settings.error_utilization_penalty
    fleet.version = 1
    return &fleet.base


cdef void weighted_refresh(Fleet* base, int64_t now) noexcept:
    cdef WeightedFleet* fleet = <WeightedFleet*>base
    fleet.now = now
    fleet.version += 1
    base.due = now + fleet.weight_update_period


cdef void weighted_observe(Slot* slot, const Outcome* outcome) noexcept:
    cdef WeightedFleet* fleet = <WeightedFleet*>slot.totals.fleet
    cdef const Load* load
    cdef double utilization
    if outcome == NULL or outcome.load == NULL:
        return
    load = outcome.load
    if load.requests_per_second <= 0.0 or load.utilization <= 0.0:
        return      # gRFC A58: such a report says nothing
    utilization = load.utilization + load.errors_per_second / load.requests_per_second * fleet.error_utilization_penalty
    if slot.estimated_at == 0 or outcome.now - slot.estimated_at >= fleet.weight_expiration_period:
        slot.waiting_since = outcome.now    # since when reports have come without a gap
    slot.estimate = min(load.requests_per_second / utilization, 1e200)
    slot.estimated_at = max(outcome.now, <int64_t>1)


cdef inline double weighted_of(const WeightedFleet* fleet, const Slot* slot) noexcept nogil:
    """What an endpoint's reports say at the last update; 0 where they say nothing."""
    if slot.estimated_at == 0 or fleet.now - slot.estimated_at >= fleet.weight_expiration_period:
        return 0.0
    if fleet.blackout_period and fleet.now - slot.waiting_since < fleet.blackout_period:
        return 0.0
    return slot.estimate


cdef Selector* weighted_new(Group* group, const PolicySettings* settings, uint64_t* random) noexcept nogil:
    cdef WeightedSelector* selector = <WeightedSelector*>selector_new(sizeof(WeightedSelector), group)
    if selector == NULL:
        return NULL
    selector.base.choose = weighted_choose
    selector.base.choose_many = choose_one_by_one
    selector.base.free = weighted_free
    selector.ramp = settings.ramp
    if not weighted_schedule(selector, NULL):
        weighted_free(&selector.base)
        return NULL
    selector.base.cursor = <uint32_t>lb_multiply_high(random_bits(random), selector.turns.length)
    return &selector.base


cdef void weighted_free(Selector* base) noexcept nogil:
    free((<WeightedSelector*>base).turns.order)
    selector_free(base)


cdef bint weighted_schedule(WeightedSelector* selector, const WeightedFleet* fleet) noexcept nogil:
    """Makes the turns anew; keeps the old ones, and returns False, without memory. `fleet` is NULL before any report."""
    cdef uint32_t count = selector.base.count
    cdef uint32_t* weights = <uint32_t*>malloc(count * sizeof(uint32_t))
    cdef Schedule turns
    cdef double total = 0.0
    cdef double largest = 0.0
    cdef double weight
    cdef uint32_t known = 0
    cdef uint32_t steps = max(<uint32_t>16, min(<uint32_t>1023, <uint32_t>TURNS // count))
    cdef uint32_t i
    cdef bint made
    if weights == NULL:
        return False
    if fleet != NULL:
        for i in range(count):
            weight = weighted_of(fleet, selector.base.slots[i])
            total += weight
            largest = max(largest, weight)
            known += weight > 0.0
    for i in range(count):
        weights[i] = selector.base.weights[i]
        if known >= 2:
            weight = weighted_of(fleet, selector.base.slots[i]) or total / known
            weights[i] = max(<uint32_t>1, <uint32_t>(weight / largest * steps + 0.5))
    made = schedule_build(&turns, weights, count)
    free(weights)
    if not made:
        return False
    if selector.turns.length:
        selector.base.cursor = <uint32_t>(<uint64_t>selector.base.cursor * turns.length // selector.turns.length)
    free(selector.turns.order)
    selector.turns = turns
    return True


cdef int32_t weighted_choose(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef WeightedSelector* selector = <WeightedSelector*>base
    cdef WeightedFleet* fleet = <WeightedFleet*>base.slots[0].totals.fleet
    cdef uint32_t position = 0
    cdef uint64_t tries
    cdef double factor
    if selector.version != fleet.version and weighted_schedule(selector, fleet):
        selector.version = fleet.version
    if lb_unlikely(base.cursor >= selector.turns.length):
        base.cursor = 0     # an explanation made the turns anew, and put the cursor of the old ones back
    tries = <uint64_t>selector.turns.length * 2 + 64
    while tries:
        tries -= 1
        position = selector.turns.order[base.cursor]
        base.cursor = 0 if base.cursor + 1 == selector.turns.length else base.cursor + 1
        if not selector.ramp.window:
            break
        factor = slow_start_factor(&selector.ramp, base.slots[position], draw.now)
        if factor >= 1.0 or random_unit(&draw.random) < factor:
            break
    return <int32_t>base.members[position]
