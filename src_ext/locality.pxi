# Which locality of a priority serves a pick: by configured weights (Envoy locality_wrr.cc), or near the caller first
# (zone-aware routing, load_balancer_impl.cc: regenerateLocalityRoutingStructures, tryChooseLocalLocalityHosts). A stage
# chooses a locality's selector; where that locality has nobody to give, `anywhere` stands in: every eligible endpoint of
# the priority. Envoy routes by zone at priority 0 only; lbcore does so at every priority.

ctypedef Selector* (*LocalityFunction)(LocalityStage*, Draw*) noexcept nogil

cdef struct LocalityStage:
    LocalityFunction choose
    uint32_t count
    Selector** selectors        # one a locality, NULL where none of its endpoints is eligible; the snapshot owns them
    Selector* anywhere
    Schedule schedule           # by weight
    uint32_t cursor
    uint32_t local_share        # by zone: part of the picks that stay local, of 10000
    uint32_t routing_enabled    # by zone: percent of the picks that are routed by zone at all
    uint64_t* residual          # by zone: running sums of what each other locality can take

# What is known of a locality when the stage is built.
cdef struct LocalityCount:
    uint32_t total              # but for draining endpoints
    uint32_t eligible
    uint64_t capacity           # eligible endpoints, or their weights; by zone only
    uint32_t weight             # 0: takes no traffic
    uint32_t callers            # in this locality; by zone only

cdef enum: PARTIAL_WEIGHT_STEPS = 10000     # resolution of a weight scaled by availability


cdef LocalityStage* locality_stage_new(uint32_t count, Selector* anywhere) noexcept nogil:
    cdef LocalityStage* stage = <LocalityStage*>calloc(1, sizeof(LocalityStage))
    if stage == NULL:
        return NULL
    stage.count = count
    stage.anywhere = anywhere
    stage.selectors = <Selector**>calloc(count, sizeof(Selector*))
    stage.residual = <uint64_t*>calloc(count, sizeof(uint64_t))
    if stage.selectors == NULL or stage.residual == NULL:
        locality_stage_free(stage)
        return NULL
    return stage


cdef void locality_stage_free(LocalityStage* stage) noexcept nogil:
    if stage == NULL:
        return
    free(stage.selectors)
    free(stage.residual)
    free(stage.schedule.order)
    free(stage)


cdef bint locality_weighted_set(
    LocalityStage* stage, const LocalityCount* localities, uint32_t overprovisioning_factor, uint64_t* random
) noexcept nogil:
    """Weights scaled by availability: weight * min(1, factor * eligible / total). False without memory."""
    cdef uint32_t* weights = <uint32_t*>malloc(stage.count * sizeof(uint32_t))
    cdef uint32_t* present = <uint32_t*>malloc(stage.count * sizeof(uint32_t))
    cdef double largest = 0.0
    cdef double share
    cdef bint partial = False
    cdef uint32_t used = 0
    cdef uint32_t i
    cdef bint built = weights != NULL and present != NULL
    if built:
        for i in range(stage.count):
            share = locality_share(&localities[i], overprovisioning_factor)
            largest = max(largest, localities[i].weight * share)
            partial = partial or 0.0 < share < 1.0
        for i in range(stage.count):
            share = locality_share(&localities[i], overprovisioning_factor)
            if localities[i].weight == 0 or share == 0.0:
                continue
            weights[used] = localities[i].weight
            if partial:
                weights[used] = max(1, <uint32_t>(localities[i].weight * share / largest * PARTIAL_WEIGHT_STEPS + 0.5))
            present[used] = i
            used += 1
        if used:
            built = schedule_build(&stage.schedule, weights, used)
    if built and used:
        for i in range(stage.schedule.length):
            stage.schedule.order[i] = present[stage.schedule.order[i]]
        stage.cursor = <uint32_t>lb_multiply_high(random_bits(random), stage.schedule.length)
    stage.choose = locality_by_weight if used else locality_anywhere
    free(weights)
    free(present)
    return built


cdef inline double locality_share(const LocalityCount* locality, uint32_t overprovisioning_factor) noexcept nogil:
    if locality.total == 0:
        return 0.0
    return min(1.0, (overprovisioning_factor / 100.0) * (1.0 * locality.eligible / locality.total))


cdef Selector* locality_anywhere(LocalityStage* stage, Draw* draw) noexcept nogil:
    return stage.anywhere


cdef Selector* locality_by_weight(LocalityStage* stage, Draw* draw) noexcept nogil:
    cdef Selector* selector = stage.selectors[stage.schedule.order[stage.cursor]]
    stage.cursor += 1
    if stage.cursor == stage.schedule.length:
        stage.cursor = 0
    return selector if selector != NULL else stage.anywhere


# Zone-aware settings, and what is known of the callers.
cdef struct ZoneAwareSettings:
    uint32_t routing_enabled        # percent
    uint32_t min_cluster_size
    int64_t force_local_zone_min_size   # -1: not forced
    bint by_weight                  # zones are measured by the weights of their endpoints, not by their number
    uint32_t caller_localities      # localities that have callers
    uint64_t callers                # in all of them


cdef void zone_aware_set(
    LocalityStage* stage, const LocalityCount* localities, bint has_local, const ZoneAwareSettings* settings
) noexcept nogil:
    """The first locality is the caller's own, where `has_local`."""
    cdef uint64_t capacity = 0
    cdef uint64_t upstream, local
    cdef uint32_t i
    cdef bint force = settings.force_local_zone_min_size >= 0
    for i in range(stage.count):
        capacity += localities[i].capacity
    stage.choose = locality_anywhere
    stage.routing_enabled = settings.routing_enabled
    if capacity == 0 or settings.callers == 0:
        return
    upstream = 10000 * localities[0].capacity // capacity
    local = 10000 * <uint64_t>localities[0].callers // settings.callers
    if has_local and (
        (upstream > 0 and upstream >= local)
        or (force and localities[0].eligible >= settings.force_local_zone_min_size)
    ):
        stage.local_share = 10000
    elif has_local and local > 0:
        stage.local_share = <uint32_t>(upstream * 10000 // local)
    for i in range(stage.count):
        stage.residual[i] = stage.residual[i - 1] if i else 0
        if localities[i].eligible == 0 or (i == 0 and has_local):
            continue
        upstream = 10000 * localities[i].capacity // capacity
        local = 10000 * <uint64_t>localities[i].callers // settings.callers
        if upstream > local:
            stage.residual[i] += upstream - local
    stage.choose = locality_by_zone


cdef Selector* locality_by_zone(LocalityStage* stage, Draw* draw) noexcept nogil:
    cdef uint64_t threshold
    cdef uint32_t i = 0
    cdef Selector* selector
    if stage.routing_enabled < 100 and random_bits(&draw.random) % 100 >= stage.routing_enabled:
        return stage.anywhere
    if stage.local_share < 10000 and random_bits(&draw.random) % 10000 >= stage.local_share:
        if stage.residual[stage.count - 1] == 0:
            # Rounding has left no capacity anywhere: any locality.
            i = <uint32_t>lb_multiply_high(random_bits(&draw.random), stage.count)
        else:
            threshold = random_bits(&draw.random) % stage.residual[stage.count - 1]
            while threshold >= stage.residual[i]:
                i += 1
    selector = stage.selectors[i]
    return selector if selector != NULL else stage.anywhere
