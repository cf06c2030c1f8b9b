# A smooth weighted order, computed once: over one cycle each member stands in it exactly as often as its weight says, its
# own turns evenly spread, so a weighted pick costs what an unweighted one does.
#
# It is the order of an earliest-deadline-first queue, as in Envoy (edf_scheduler.h): pick number k of a member of weight
# w is due at k / w. Envoy leaves ties to floating-point rounding and insertion order; here the lighter member goes first,
# then the one that stands first in the cluster.

cdef enum:
    LONGEST_CYCLE = 1048576     # beyond it weights are rounded to shares of this; 4 MiB
    DEADLINE_BITS = 43          # k and w are at most 2^20, so deadlines that differ do so by 2^-40 or more

cdef struct Schedule:
    uint32_t* order         # positions in the group
    uint32_t length


cdef uint64_t greatest_divisor(const uint32_t* weights, uint32_t count) noexcept nogil:
    cdef uint64_t common = 0
    cdef uint64_t other, rest
    cdef uint32_t i
    for i in range(count):
        other = weights[i]
        while other:
            rest = common % other
            common = other
            other = rest
        if common == 1:
            break
    return common or 1


cdef bint schedule_build(Schedule* schedule, const uint32_t* weights, uint32_t count) noexcept nogil:
    """False without memory. Weights are 1 or more."""
    cdef uint64_t total = 0
    cdef uint32_t i
    cdef uint64_t common = greatest_divisor(weights, count)
    cdef uint64_t* turns
    cdef bint built
    for i in range(count):
        total += weights[i] // common
    if total == count:
        schedule.length = count
        schedule.order = <uint32_t*>malloc((count or 1) * sizeof(uint32_t))
        if schedule.order != NULL:
            for i in range(count):
                schedule.order[i] = i
        return schedule.order != NULL
    turns = <uint64_t*>malloc(count * sizeof(uint64_t))
    if turns == NULL:
        return False
    for i in range(count):
        turns[i] = weights[i] // common
        if total > LONGEST_CYCLE:
            turns[i] = max(<uint64_t>1, <uint64_t>(<double>turns[i] * LONGEST_CYCLE / <double>total + 0.5))
    built = schedule_by_deadline(schedule, turns, count)
    free(turns)
    return built


cdef bint schedule_by_deadline(Schedule* schedule, const uint64_t* turns, uint32_t count) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint64_t turn
    cdef uint32_t i, member
    cdef uint32_t position = 0
    cdef SpreadKeys by_weight
    cdef SpreadKeys by_deadline
    cdef uint64_t* keys
    cdef uint32_t* owners
    cdef bint built = False
    for i in range(count):
        total += turns[i]
    if total > 0xFFFFFFFFU:
        return False
    keys = <uint64_t*>malloc(total * sizeof(uint64_t))
    owners = <uint32_t*>malloc(total * sizeof(uint32_t))
    memset(&by_weight, 0, sizeof(SpreadKeys))
    if keys != NULL and owners != NULL:
        for i in range(count):
            keys[i] = turns[i] << DEADLINE_BITS
            owners[i] = i
        if spread_sort(keys, owners, count, index_bits(count, 0), &by_weight):
            for i in range(count):
                member = by_weight.owners[i]
                for turn in range(1, turns[member] + 1):
                    keys[position] = (((turn << DEADLINE_BITS) // turns[member]) - 1) << (64 - DEADLINE_BITS)
                    owners[position] = member
                    position += 1
            if spread_sort(keys, owners, position, index_bits(position, 0), &by_deadline):
                schedule.order = by_deadline.owners
                schedule.length = position
                by_deadline.owners = NULL
                spread_free(&by_deadline)
                built = True
    spread_free(&by_weight)
    free(keys)
    free(owners)
    return built


cdef inline uint32_t index_bits(uint64_t count, uint32_t extra) noexcept nogil:
    """Bits of an index with about one bucket an entry, times 2^extra; 1 to 30."""
    cdef uint32_t bits = 1
    while (<uint64_t>1 << bits) < count and bits < 30:
        bits += 1
    return min(bits + extra, <uint32_t>30)
