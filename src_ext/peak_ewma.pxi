# Peak EWMA: the least (requests in flight + 1) * latency for its weight, where an endpoint's latency is a moving average
# that a slow answer raises at once and quick ones lower slowly. References: Finagle PeakEwma.scala, linkerd's
# tower-balance, Envoy contrib peak_ewma (cost.cc).
#
# Three rules are lbcore's own, each against a known way to fail:
# - An estimate decays on read only while nothing is in flight at its endpoint. One request then finds out whether it has
#   recovered; the others wait for its answer instead of stampeding after it.
# - An estimate of L seconds takes at least PROBATION times L to decay, so that trying a slow endpoint again costs at most
#   that part of its time, however many clients do so and however short `decay_time` is.
# - A failure never makes an endpoint look quicker than it did, nor than the fleet does, and who fails more than the fleet
#   does costs the more for it (error_aversion.pxi): one that fails fast would draw all traffic.
#
# A full scan finds the same endpoint again and again for who picks and never counts a request (`pick` without `acquire`), for
# nothing changes: after UNCOUNTED such picks in a row one is drawn at random, each the more often the less it costs.

from libc.math cimport exp

cdef enum:
    PROBATION = 10
    UNCOUNTED = 2           # picks in a row without a request: one may look again before it sends
    FLEET_MEMORY = 1000     # samples, of what is learned of a fleet as a whole

cdef struct PeakEwmaFleet:
    Fleet base
    double decay_time       # ns
    double failing          # share of answers
    double mean             # ns, of estimates, over the last FLEET_MEMORY answers or so

cdef struct PeakEwmaSelector:
    Selector base
    PeakEwmaFleet* fleet    # the cluster's, which outlives its snapshots
    uint32_t choice_count
    double decay_time       # ns
    double default_rtt      # ns
    double penalty          # ns
    double error_penalty
    SlowStartRamp ramp


cdef Fleet* peak_ewma_fleet(const PolicySettings* settings) noexcept nogil:
    cdef PeakEwmaFleet* fleet = <PeakEwmaFleet*>calloc(1, sizeof(PeakEwmaFleet))
    if fleet == NULL:
        return NULL
    fleet.base.free = fleet_free
    fleet.decay_time = settings.decay_time
    return &fleet.base


cdef Selector* peak_ewma_new(Group* group, const PolicySettings* settings) noexcept nogil:
    cdef PeakEwmaSelector* selector = <PeakEwmaSelector*>selector_new(sizeof(PeakEwmaSelector), group)
    if selector == NULL:
        return NULL
    selector.fleet = <PeakEwmaFleet*>selector.base.slots[0].totals.fleet
    selector.choice_count = settings.choice_count
    selector.decay_time = settings.decay_time
    selector.default_rtt = settings.default_rtt
    selector.penalty = settings.penalty
    selector.error_penalty = settings.error_penalty
    selector.ramp = settings.ramp
    selector.base.choose = peak_ewma_scan if settings.full_scan else peak_ewma_sample
    selector.base.choose_many = choose_one_by_one
    selector.base.score = peak_ewma_score
    selector.base.scans = settings.full_scan
    return &selector.base


cdef inline double peak_ewma_memory(double decay_time, double estimate) noexcept nogil:
    """ns in which an estimate falls to 1/e."""
    return max(decay_time, PROBATION * estimate)


cdef inline double peak_ewma_load(PeakEwmaSelector* selector, uint32_t position, int64_t now) noexcept nogil:
    cdef const Slot* slot = selector.base.slots[position]
    cdef double cost = slot.estimate
    if slot.estimated_at == 0:
        if slot.active:
            return selector.penalty + slot.active
        cost = selector.default_rtt
    elif slot.active == 0 and now > slot.estimated_at:
        cost *= exp((slot.estimated_at - now) / peak_ewma_memory(selector.decay_time, cost))
    if lb_unlikely(slot.failing > 0.0):
        cost *= 1.0 + selector.error_penalty * failure_excess(slot, selector.fleet.failing, now)
    return cost * (slot.active + 1)


cdef double peak_ewma_score(Selector* base, uint32_t position, int64_t now) noexcept nogil:
    cdef PeakEwmaSelector* selector = <PeakEwmaSelector*>base
    cdef double weight = base.weights[position]
    if selector.ramp.window:
        weight *= slow_start_factor(&selector.ramp, base.slots[position], now)
    return peak_ewma_load(selector, position, now) / weight


cdef int32_t peak_ewma_scan(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef Fleet* fleet = &(<PeakEwmaSelector*>base).fleet.base
    cdef int64_t active = base.slots[0].totals.active
    if active == fleet.active:
        fleet.uncounted += 1
    else:
        fleet.uncounted = 0     # the last pick became a request
        fleet.active = active
    if lb_unlikely(fleet.uncounted > UNCOUNTED):
        return <int32_t>base.members[draw_by_score(base, draw)]
    return scan_by_score(base, draw, hash)


cdef int32_t peak_ewma_sample(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    """Of a few distinct endpoints; a tie goes to the first sampled."""
    cdef uint32_t first, second, i
    cdef uint64_t bits
    cdef double best, score
    if base.count == 1:
        return <int32_t>base.members[0]
    bits = random_bits(&draw.random)
    first = <uint32_t>(((bits >> 32) * base.count) >> 32)
    second = <uint32_t>(((bits & 0xFFFFFFFFU) * (base.count - 1)) >> 32)
    second += second >= first
    best = peak_ewma_score(base, first, draw.now)
    for i in range(1, (<PeakEwmaSelector*>base).choice_count):
        if i > 1:
            second = <uint32_t>lb_multiply_high(random_bits(&draw.random), base.count)
        score = peak_ewma_score(base, second, draw.now)
        if score < best:
            best = score
            first = second
    return <int32_t>base.members[first]


cdef void peak_ewma_observe(Slot* slot, const Outcome* outcome) noexcept:
    cdef PeakEwmaFleet* fleet = <PeakEwmaFleet*>slot.totals.fleet
    cdef double latency, kept
    cdef int64_t age
    fleet.base.uncounted = 0
    if outcome == NULL:
        return
    failures_learn(slot, &fleet.failing, outcome)
    if outcome.latency < 0:
        return
    latency = <double>max(outcome.latency, <int64_t>1)
    if not outcome.ok:
        latency = max(latency, max(slot.estimate, fleet.mean))
    if latency >= slot.estimate:
        slot.estimate = latency
    else:
        age = max(<int64_t>0, outcome.now - slot.estimated_at)
        kept = exp(-age / peak_ewma_memory(fleet.decay_time, slot.estimate))
        slot.estimate = slot.estimate * kept + latency * (1.0 - kept)
    slot.estimated_at = outcome.now
    if outcome.ok:
        fleet.mean += (slot.estimate - fleet.mean) / (FLEET_MEMORY if fleet.mean else 1)
