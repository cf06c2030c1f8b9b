# Round robin, weighted or not: the next entry of a smooth schedule (schedule.pxi). The cursor is the one thing in a
# selector that a pick writes. It begins at random, so that many clients do not start with the same endpoint, and an update
# carries the phase of the cycle over.
#
# During slow start an endpoint takes only the share of its turns that its age allows (slow_start.pxi): its shares move
# with the clock, and no schedule is rebuilt.

cdef struct RoundRobinSelector:
    Selector base
    uint32_t* order         # members
    uint32_t length
    SlowStartRamp ramp


cdef Selector* round_robin_new(Group* group, const SlowStartRamp* ramp, uint64_t* random, Selector* before) noexcept nogil:
    cdef Schedule schedule
    cdef RoundRobinSelector* selector
    cdef RoundRobinSelector* old = <RoundRobinSelector*>before
    cdef uint32_t i
    if not schedule_build(&schedule, group.weights, group.count):
        return NULL
    selector = <RoundRobinSelector*>selector_new(sizeof(RoundRobinSelector), group)
    if selector == NULL:
        free(schedule.order)
        return NULL
    selector.base.choose = round_robin_choose
    selector.base.choose_many = round_robin_choose_many
    selector.base.reserve = round_robin_reserve
    selector.base.free = round_robin_free
    selector.order = schedule.order
    selector.length = schedule.length
    selector.ramp = ramp[0]
    if old != NULL:
        selector.base.cursor = <uint32_t>(<uint64_t>old.base.cursor * schedule.length // old.length)
    else:
        selector.base.cursor = <uint32_t>lb_multiply_high(random_bits(random), schedule.length)
    if group.ramping:
        selector.base.choose = round_robin_choose_ramping
        selector.base.choose_many = choose_one_by_one
        selector.base.reserve = NULL
    else:
        for i in range(schedule.length):
            selector.order[i] = selector.base.members[selector.order[i]]
    return &selector.base


cdef void round_robin_free(Selector* base) noexcept nogil:
    free((<RoundRobinSelector*>base).order)
    selector_free(base)


cdef int32_t round_robin_choose(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef RoundRobinSelector* selector = <RoundRobinSelector*>base
    cdef uint32_t cursor = base.cursor
    cdef uint32_t following = cursor + 1
    base.cursor = 0 if following == selector.length else following
    return <int32_t>selector.order[cursor]


cdef void round_robin_reserve(Selector* base, Draw* shared, Draw* batch, Py_ssize_t count) noexcept nogil:
    cdef RoundRobinSelector* selector = <RoundRobinSelector*>base
    batch.cursor = base.cursor
    base.cursor = <uint32_t>((<uint64_t>base.cursor + <uint64_t>count) % selector.length)


cdef void round_robin_choose_many(
    Selector* base, Draw* draw, const uint64_t* hashes, int32_t* out, Py_ssize_t count
) noexcept nogil:
    cdef RoundRobinSelector* selector = <RoundRobinSelector*>base
    cdef uint32_t cursor = draw.cursor
    cdef Py_ssize_t done = 0
    cdef Py_ssize_t run
    while done < count:
        run = min(count - done, <Py_ssize_t>(selector.length - cursor))
        memcpy(out + done, selector.order + cursor, run * sizeof(int32_t))
        done += run
        cursor = 0


cdef int32_t round_robin_choose_ramping(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef RoundRobinSelector* selector = <RoundRobinSelector*>base
    cdef uint32_t position = 0
    cdef uint64_t tries = <uint64_t>selector.length * 2 + 64
    cdef double factor
    while tries:
        tries -= 1
        position = <uint32_t>selector.order[base.cursor]
        base.cursor += 1
        if base.cursor == selector.length:
            base.cursor = 0
        factor = slow_start_factor(&selector.ramp, base.slots[position], draw.now)
        if factor >= 1.0 or random_unit(&draw.random) < factor:
            break
    return <int32_t>base.members[position]
