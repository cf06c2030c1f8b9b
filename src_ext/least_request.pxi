# Least request: of a few endpoints sampled with replacement, or of all, the one with the least in flight for its weight.
# With equal weights in-flight counts are compared, else (active + 1) ^ bias / weight. The first sampled wins a tie; a full
# scan breaks ties evenly at random (reservoir sampling). Reference: Envoy least_request_lb.cc, gRFC A48; the weighted
# score is lbcore's own, where Envoy turns to a weighted round robin.

cdef struct LeastRequestSelector:
    Selector base
    uint32_t choice_count
    double bias
    SlowStartRamp ramp


cdef Selector* least_request_new(
    Group* group, uint32_t choice_count, bint full_scan, double bias, const SlowStartRamp* ramp
) noexcept nogil:
    cdef bint scored = not group.equal_weights or group.ramping
    cdef LeastRequestSelector* selector = <LeastRequestSelector*>selector_new(sizeof(LeastRequestSelector), group)
    if selector == NULL:
        return NULL
    selector.choice_count = choice_count
    selector.bias = bias
    selector.ramp = ramp[0]
    selector.base.choose_many = choose_one_by_one
    selector.base.score = least_request_score
    selector.base.scans = full_scan
    if full_scan:
        selector.base.choose = scan_by_score if scored else least_request_scan
    elif scored:
        selector.base.choose = least_request_sample_scored
    else:
        selector.base.choose = least_request_sample_two if choice_count == 2 else least_request_sample
    return &selector.base


cdef int32_t least_request_sample_two(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    # One draw, split: 32 bits are plenty for a position, and the second sample is then independent of the first's load.
    cdef uint64_t bits = random_bits(&draw.random)
    cdef uint32_t first = <uint32_t>(((bits >> 32) * base.count) >> 32)
    cdef uint32_t second = <uint32_t>(((bits & 0xFFFFFFFFU) * base.count) >> 32)
    cdef bint other = base.slots[second].active < base.slots[first].active
    return <int32_t>base.members[second if other else first]


cdef int32_t least_request_sample(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef uint32_t best = <uint32_t>lb_multiply_high(random_bits(&draw.random), base.count)
    cdef uint32_t i, candidate
    for i in range(1, (<LeastRequestSelector*>base).choice_count):
        candidate = <uint32_t>lb_multiply_high(random_bits(&draw.random), base.count)
        if base.slots[candidate].active < base.slots[best].active:
            best = candidate
    return <int32_t>base.members[best]


cdef double least_request_score(Selector* base, uint32_t position, int64_t now) noexcept nogil:
    return least_request_load(base, position, now)


cdef inline double least_request_load(Selector* base, uint32_t position, int64_t now) noexcept nogil:
    cdef LeastRequestSelector* selector = <LeastRequestSelector*>base
    cdef Slot* slot = base.slots[position]
    cdef double load = <double>(slot.active + 1)
    cdef double weight = <double>base.weights[position]
    if selector.bias != 1.0:
        load = pow(load, selector.bias)
    if selector.ramp.window:
        weight *= slow_start_factor(&selector.ramp, slot, now)
    return load / weight


cdef int32_t least_request_sample_scored(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef uint32_t best = <uint32_t>lb_multiply_high(random_bits(&draw.random), base.count)
    cdef double best_score = least_request_load(base, best, draw.now)
    cdef uint32_t i, candidate
    cdef double score
    for i in range(1, (<LeastRequestSelector*>base).choice_count):
        candidate = <uint32_t>lb_multiply_high(random_bits(&draw.random), base.count)
        score = least_request_load(base, candidate, draw.now)
        if score < best_score:
            best = candidate
            best_score = score
    return <int32_t>base.members[best]


cdef int32_t least_request_scan(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef uint32_t best = 0
    cdef int64_t least = base.slots[0].active
    cdef uint32_t ties = 1
    cdef uint32_t i
    cdef int64_t active
    for i in range(1, base.count):
        active = base.slots[i].active
        if active < least:
            best = i
            least = active
            ties = 1
        elif active == least:
            ties += 1
            if lb_multiply_high(random_bits(&draw.random), ties) == 0:
                best = i
    return <int32_t>base.members[best]
