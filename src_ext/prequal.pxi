# Prequal: the least latency among endpoints that are not hot, by what probes have found of a few of them ("Load is not what
# you should balance: Introducing Prequal", NSDI 2024). A pool holds the latest probes, one an endpoint:
#
# - An endpoint is hot if it has more requests in flight than a quantile of those that probes found. The cold one with the
#   least latency is picked; where all are hot, the one with the fewest requests in flight.
# - Each request sent adds one to what the probe of its endpoint found, and uses that probe up by one.
# - Probes go when they are used up, too old, or replaced; and one a request, in turn the oldest and the worst.
# - With fewer than two probes, two endpoints are sampled and the one with fewer own requests in flight wins.
#
# Own to lbcore: an endpoint that fails more than the fleet does is taken for slower and busier by `error_penalty` times the
# difference, so that failing fast draws no traffic; and with no more endpoints than the pool has places, where the paper's
# rule for reuse has no solution, a probe is used until something replaces it.

from libc.math cimport floor
from libc.string cimport memmove
from libc.stdlib cimport qsort

cdef enum:
    RIF_MEMORY = 128        # probes, of which the quantile is taken
    LATENCY_MEMORY = 20     # answers, of its own mean latency
    LEAST_POOL = 2          # probes; with fewer they are no choice
# Scores are seconds for the cold, and from here on requests in flight: of the hot, then of those without a probe.
cdef double HOT = 1e12
cdef double UNKNOWN = 4e12

cdef struct Probe:
    Slot* slot              # to compare with, never to follow: it may be gone. NULL: a free place
    int64_t at              # ns
    double rif              # as found, and what was sent since
    double latency          # seconds
    double uses             # left

cdef struct PrequalFleet:
    Fleet base
    Probe* pool
    uint32_t size
    int64_t max_age         # ns
    double probes_per_pick
    double removals_per_pick
    double reuse_slack
    double hot_quantile
    double error_penalty
    uint64_t random
    double removals         # due
    bint removes_oldest     # next; else the worst
    double threshold        # requests in flight; more are hot
    double recent[RIF_MEMORY]
    double ordered[RIF_MEMORY]      # the same, ascending
    uint64_t found          # probes so far
    double mean             # seconds, of answers
    double failing          # share of answers

cdef struct PlacedSlot:
    Slot* slot
    uint32_t position

cdef struct PrequalSelector:
    Selector base
    PrequalFleet* fleet     # the cluster's, which outlives its snapshots
    PlacedSlot* placed      # by address of the slot


cdef Fleet* prequal_fleet(const PolicySettings* settings, uint64_t random) noexcept nogil:
    cdef PrequalFleet* fleet = <PrequalFleet*>calloc(1, sizeof(PrequalFleet))
    if fleet == NULL:
        return NULL
    fleet.pool = <Probe*>calloc(settings.pool_size, sizeof(Probe))
    if fleet.pool == NULL:
        free(fleet)
        return NULL
    fleet.base.free = prequal_fleet_free
    fleet.base.sent = prequal_sent
    fleet.base.probed = prequal_probed
    fleet.size = settings.pool_size
    fleet.max_age = settings.max_age
    fleet.probes_per_pick = settings.probes_per_pick
    fleet.removals_per_pick = settings.removals_per_pick
    fleet.reuse_slack = settings.reuse_slack
    fleet.hot_quantile = settings.hot_quantile
    fleet.error_penalty = settings.error_penalty
    fleet.random = random
    fleet.threshold = LB_TALLEST
    return &fleet.base


cdef void prequal_fleet_free(Fleet* fleet) noexcept nogil:
    free((<PrequalFleet*>fleet).pool)
    free(fleet)


# Picking

cdef int compare_placed(const void* one, const void* other) noexcept nogil:
    cdef size_t first = <size_t>(<const PlacedSlot*>one).slot
    cdef size_t second = <size_t>(<const PlacedSlot*>other).slot
    return (first > second) - (first < second)


cdef Selector* prequal_new(Group* group) noexcept nogil:
    cdef PrequalSelector* selector = <PrequalSelector*>selector_new(sizeof(PrequalSelector), group)
    cdef uint32_t i
    if selector == NULL:
        return NULL
    selector.base.choose = prequal_choose
    selector.base.choose_many = choose_one_by_one
    selector.base.score = prequal_score
    selector.base.scans = True
    selector.base.free = prequal_free
    selector.fleet = <PrequalFleet*>selector.base.slots[0].totals.fleet
    selector.placed = <PlacedSlot*>malloc(selector.base.count * sizeof(PlacedSlot))
    if selector.placed == NULL:
        prequal_free(&selector.base)
        return NULL
    for i in range(selector.base.count):
        selector.placed[i].slot = selector.base.slots[i]
        selector.placed[i].position = i
    qsort(selector.placed, selector.base.count, sizeof(PlacedSlot), compare_placed)
    return &selector.base


cdef void prequal_free(Selector* base) noexcept nogil:
    free((<PrequalSelector*>base).placed)
    selector_free(base)


cdef inline Probe* probe_of(PrequalFleet* fleet, const Slot* slot) noexcept nogil:
    """The endpoint's own in the pool; NULL without. The slot knows its place, the place knows whose it is now."""
    cdef Probe* probe
    if slot.probe == 0:
        return NULL
    probe = &fleet.pool[slot.probe - 1]
    return probe if probe.slot == slot else NULL


cdef inline bint probe_is_fresh(const PrequalFleet* fleet, const Probe* probe, int64_t now) noexcept nogil:
    return now - probe.at <= fleet.max_age


cdef inline double prequal_aversion(const PrequalFleet* fleet, const Slot* slot, int64_t now) noexcept nogil:
    """How much an endpoint fails beyond the fleet, times the penalty; 0 where it does not."""
    return fleet.error_penalty * failure_excess(slot, fleet.failing, now)


cdef inline double prequal_own_load(PrequalSelector* selector, uint32_t position, int64_t now) noexcept nogil:
    cdef const Slot* slot = selector.base.slots[position]
    return (slot.active + 1 + prequal_aversion(selector.fleet, slot, now)) / selector.base.weights[position]


cdef inline double probe_score(const PrequalFleet* fleet, const Probe* probe, double aversion) noexcept nogil:
    cdef double rif = probe.rif + aversion
    if rif > fleet.threshold:
        return HOT + min(rif, HOT)
    return probe.latency * (1.0 + aversion)


cdef double prequal_score(Selector* base, uint32_t position, int64_t now) noexcept nogil:
    cdef PrequalSelector* selector = <PrequalSelector*>base
    cdef const Slot* slot = base.slots[position]
    cdef const Probe* probe = probe_of(selector.fleet, slot)
    if probe == NULL or not probe_is_fresh(selector.fleet, probe, now):
        return UNKNOWN + prequal_own_load(selector, position, now)
    return probe_score(selector.fleet, probe, prequal_aversion(selector.fleet, slot, now))


cdef int32_t prequal_choose(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef PrequalSelector* selector = <PrequalSelector*>base
    cdef PrequalFleet* fleet = selector.fleet
    cdef uint32_t usable = 0
    cdef uint32_t best = 0
    cdef uint32_t ties = 0
    cdef uint32_t i
    cdef int64_t position
    cdef double least = LB_TALLEST
    cdef double score
    for i in range(fleet.size):
        if fleet.pool[i].slot == NULL or not probe_is_fresh(fleet, &fleet.pool[i], draw.now):
            continue
        position = prequal_position(selector, fleet.pool[i].slot)
        if position < 0 or base.slots[position].probe != i + 1:
            continue
        usable += 1
        score = probe_score(fleet, &fleet.pool[i], prequal_aversion(fleet, base.slots[position], draw.now))
        if score < least:
            best = <uint32_t>position
            least = score
            ties = 1
        elif score == least:
            ties += 1
            if lb_multiply_high(random_bits(&draw.random), ties) == 0:
                best = <uint32_t>position
    if usable < LEAST_POOL:
        return prequal_sample(selector, draw)
    return <int32_t>base.members[best]


cdef int64_t prequal_position(const PrequalSelector* selector, const Slot* slot) noexcept nogil:
    """In the group; -1 where the endpoint is not of it. By binary search."""
    cdef uint32_t low = 0
    cdef uint32_t high = selector.base.count
    cdef uint32_t middle
    while low < high:
        middle = low + (high - low) // 2
        if <size_t>selector.placed[middle].slot < <size_t>slot:
            low = middle + 1
        else:
            high = middle
    if low == selector.base.count or selector.placed[low].slot != slot:
        return -1
    return selector.placed[low].position


cdef int32_t prequal_sample(PrequalSelector* selector, Draw* draw) noexcept nogil:
    """Of two distinct endpoints the one that has fewer of this client's requests for its weight."""
    cdef Selector* base = &selector.base
    cdef uint64_t bits
    cdef uint32_t first, second
    if base.count == 1:
        return <int32_t>base.members[0]
    bits = random_bits(&draw.random)
    first = <uint32_t>(((bits >> 32) * base.count) >> 32)
    second = <uint32_t>(((bits & 0xFFFFFFFFU) * (base.count - 1)) >> 32)
    second += second >= first
    if prequal_own_load(selector, second, draw.now) < prequal_own_load(selector, first, draw.now):
        first = second
    return <int32_t>base.members[first]


# Learning

cdef void prequal_probed(Slot* slot, const Load* load, int64_t latency, int64_t now, uint32_t count) noexcept:
    """`latency`: ns, -1 where the probe does not say; the mean of the endpoint's own answers then stands in."""
    cdef PrequalFleet* fleet = <PrequalFleet*>slot.totals.fleet
    cdef Probe* probe = probe_of(fleet, slot)
    cdef uint32_t i
    if probe == NULL:
        # A free place, else the oldest's.
        probe = &fleet.pool[0]
        for i in range(fleet.size):
            if fleet.pool[i].slot == NULL:
                probe = &fleet.pool[i]
                break
            if fleet.pool[i].at < probe.at:
                probe = &fleet.pool[i]
        probe.slot = slot
        slot.probe = <uint32_t>(probe - fleet.pool) + 1
    probe.at = now
    probe.rif = <double>load.in_flight
    probe.latency = latency / 1e9
    if latency < 0:
        probe.latency = slot.estimate if slot.estimated_at else fleet.mean
    probe.uses = prequal_uses(fleet, count)
    prequal_learn_rif(fleet, probe.rif)


cdef double prequal_uses(PrequalFleet* fleet, uint32_t count) noexcept:
    """How often a probe may be used, rounded at random to whole numbers that have the right mean (b_reuse of the paper)."""
    cdef double kept = (1.0 - fleet.size / <double>count) * fleet.probes_per_pick - fleet.removals_per_pick
    cdef double uses
    if kept <= 0.0:
        return LB_TALLEST
    uses = max(1.0, (1.0 + fleet.reuse_slack) / kept)
    return floor(uses + (random_bits(&fleet.random) >> 11) * (1.0 / 9007199254740992.0))


cdef void prequal_learn_rif(PrequalFleet* fleet, double rif) noexcept:
    """Replaces the oldest of the last probes' requests in flight, and finds the quantile anew."""
    cdef uint32_t known = <uint32_t>min(fleet.found, <uint64_t>RIF_MEMORY)
    cdef uint32_t place = <uint32_t>(fleet.found % RIF_MEMORY)
    cdef uint32_t i = 0
    if known == RIF_MEMORY:
        while fleet.ordered[i] != fleet.recent[place]:
            i += 1
        known -= 1
        memmove(&fleet.ordered[i], &fleet.ordered[i + 1], (known - i) * sizeof(double))
    i = known
    while i > 0 and fleet.ordered[i - 1] > rif:
        i -= 1
    memmove(&fleet.ordered[i + 1], &fleet.ordered[i], (known - i) * sizeof(double))
    fleet.ordered[i] = rif
    fleet.recent[place] = rif
    fleet.found += 1
    fleet.threshold = LB_TALLEST    # at 1 nothing is hot
    if fleet.hot_quantile < 1.0:
        fleet.threshold = fleet.ordered[<uint32_t>(fleet.hot_quantile * (known + 1))]


cdef int64_t prequal_sent(Slot* slot, int64_t now) noexcept:
    cdef PrequalFleet* fleet = <PrequalFleet*>slot.totals.fleet
    cdef Probe* probe = probe_of(fleet, slot)
    if probe != NULL:
        probe.rif += 1.0
        probe.uses -= 1.0
        if probe.uses < 1.0:
            probe.slot = NULL
    fleet.removals += fleet.removals_per_pick
    while fleet.removals >= 1.0:
        fleet.removals -= 1.0
        prequal_remove(fleet)
    return -1


cdef void prequal_remove(PrequalFleet* fleet) noexcept:
    """In turn the oldest probe and the worst: the hottest, else the slowest."""
    cdef Probe* gone = NULL
    cdef Probe* probe
    cdef uint32_t i
    for i in range(fleet.size):
        probe = &fleet.pool[i]
        if probe.slot == NULL:
            continue
        if gone == NULL or (
            probe.at < gone.at if fleet.removes_oldest else probe_score(fleet, probe, 0.0) > probe_score(fleet, gone, 0.0)
        ):
            gone = probe
    if gone != NULL:
        gone.slot = NULL
    fleet.removes_oldest = not fleet.removes_oldest


cdef void prequal_observe(Slot* slot, const Outcome* outcome) noexcept:
    cdef PrequalFleet* fleet = <PrequalFleet*>slot.totals.fleet
    cdef double latency
    if outcome == NULL:
        return
    failures_learn(slot, &fleet.failing, outcome)
    if outcome.ok and outcome.latency >= 0:
        latency = outcome.latency / 1e9
        slot.estimate += (latency - slot.estimate) / (LATENCY_MEMORY if slot.estimated_at else 1)
        slot.estimated_at = max(outcome.now, <int64_t>1)
        fleet.mean += (latency - fleet.mean) / (FLEET_MEMORY if fleet.mean else 1)
