# Priorities: which share of the traffic each priority's healthy and degraded endpoints get, and which priorities panic.
# All is integer arithmetic, as in Envoy (load_balancer_impl.cc: recalculatePerPriorityState, recalculatePerPriorityPanic,
# recalculateLoadInTotalPanic, choosePriority).

cdef struct PriorityState:
    uint32_t total
    uint32_t healthy
    uint32_t degraded
    uint32_t excluded           # draining: they leave on purpose, and stay out of the denominators
    uint32_t healthy_load       # percent of the traffic
    uint32_t degraded_load
    bint panic


cdef void priority_loads(
    PriorityState* priorities, uint32_t count, uint32_t overprovisioning_factor, uint32_t panic_threshold
) noexcept nogil:
    """Fills loads and panic in from the counts. The loads sum to 100."""
    cdef uint64_t available = 0
    cdef uint32_t i
    cdef bint total_panic = True
    for i in range(count):
        priorities[i].panic = False
        available += availability(priorities[i].healthy, considered(&priorities[i]), overprovisioning_factor)
        available += availability(priorities[i].degraded, considered(&priorities[i]), overprovisioning_factor)
    available = min(available, <uint64_t>100)
    distribute(priorities, count, overprovisioning_factor, available)
    for i in range(count):
        priorities[i].panic = available < 100 and in_panic(&priorities[i], panic_threshold)
        total_panic = total_panic and priorities[i].panic
    if total_panic:
        distribute_in_total_panic(priorities, count)
    elif available == 0:
        priorities[0].healthy_load = 100    # nobody to give, or too few for a percent: the loads still sum to 100


cdef inline uint32_t considered(const PriorityState* priority) noexcept nogil:
    return priority.total - priority.excluded


cdef inline uint32_t availability(uint32_t eligible, uint32_t total, uint32_t overprovisioning_factor) noexcept nogil:
    """Percent, at most 100."""
    if total == 0:
        return 0
    return <uint32_t>min(<uint64_t>overprovisioning_factor * eligible // total, <uint64_t>100)


cdef inline bint in_panic(const PriorityState* priority, uint32_t panic_threshold) noexcept nogil:
    cdef uint32_t count = considered(priority)
    if count == 0:
        return panic_threshold > 0
    # Two quotients added, not one: Envoy's rounding decides at the boundary.
    return 100.0 * priority.healthy / count + 100.0 * priority.degraded / count < panic_threshold


cdef void distribute(
    PriorityState* priorities, uint32_t count, uint32_t overprovisioning_factor, uint64_t available
) noexcept nogil:
    cdef uint32_t rest = 100
    cdef uint32_t i, share
    for i in range(count):
        priorities[i].healthy_load = 0
        priorities[i].degraded_load = 0
    if available == 0:
        return
    for i in range(count):
        share = availability(priorities[i].healthy, considered(&priorities[i]), overprovisioning_factor)
        priorities[i].healthy_load = <uint32_t>min(<uint64_t>rest, share * 100 // available)
        rest -= priorities[i].healthy_load
    for i in range(count):
        share = availability(priorities[i].degraded, considered(&priorities[i]), overprovisioning_factor)
        priorities[i].degraded_load = <uint32_t>min(<uint64_t>rest, share * 100 // available)
        rest -= priorities[i].degraded_load
    # What rounding has left goes to the first available priority, healthy before degraded.
    for i in range(count):
        if rest and availability(priorities[i].healthy, considered(&priorities[i]), overprovisioning_factor):
            priorities[i].healthy_load += rest
            return
    for i in range(count):
        if rest and availability(priorities[i].degraded, considered(&priorities[i]), overprovisioning_factor):
            priorities[i].degraded_load += rest
            return


cdef void distribute_in_total_panic(PriorityState* priorities, uint32_t count) noexcept nogil:
    """By the number of endpoints, whatever their health."""
    cdef uint64_t total = 0
    cdef uint32_t rest = 100
    cdef uint32_t i
    for i in range(count):
        total += priorities[i].total
    if total == 0:
        priorities[0].healthy_load = 100
        return
    for i in range(count):
        priorities[i].healthy_load = <uint32_t>(<uint64_t>100 * priorities[i].total // total)
        priorities[i].degraded_load = 0
        rest -= priorities[i].healthy_load
    for i in range(count):
        if priorities[i].total:
            priorities[i].healthy_load += rest
            break
