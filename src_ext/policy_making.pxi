# The one place where a policy becomes what carries it out: the selector of a group, and what a load-aware policy learns of
# the whole cluster.


cdef int policy_learn(const PolicySettings* settings, Totals* totals, uint64_t random) except -1:
    """Sets up what a load-aware policy learns of the cluster; nothing for the others."""
    if settings.kind == PEAK_EWMA:
        totals.fleet = peak_ewma_fleet(settings)
        totals.observe_load = peak_ewma_observe
    elif settings.kind == ADAPTIVE:
        totals.fleet = adaptive_fleet(settings, random)
        totals.observe_load = adaptive_observe
    elif settings.kind == CLIENT_SIDE_WEIGHTED_ROUND_ROBIN:
        totals.fleet = weighted_fleet(settings)
        totals.observe_load = weighted_observe
    elif settings.kind == PREQUAL:
        totals.fleet = prequal_fleet(settings, random)
        totals.observe_load = prequal_observe
    else:
        return 0
    if totals.fleet == NULL:
        raise MemoryError("no memory for what a policy learns")
    return 0


cdef Selector* policy_compile(const PolicySettings* settings, Group* group, uint64_t* random, Selector* before) noexcept nogil:
    """The selector of a group that is not empty; it takes the group's arrays over. NULL without memory."""
    cdef Selector* selector = NULL
    cdef double* shares
    if settings.kind == ROUND_ROBIN:
        selector = round_robin_new(group, &settings.ramp, random, before)
    elif settings.kind == RANDOM:
        selector = random_new(group)
    elif settings.kind == LEAST_REQUEST:
        selector = least_request_new(
            group, settings.choice_count, settings.full_scan, settings.active_request_bias, &settings.ramp
        )
    elif settings.kind == PEAK_EWMA:
        selector = peak_ewma_new(group, settings)
    elif settings.kind == ADAPTIVE:
        selector = adaptive_new(group, random)
    elif settings.kind == CLIENT_SIDE_WEIGHTED_ROUND_ROBIN:
        selector = weighted_new(group, settings, random)
    elif settings.kind == PREQUAL:
        selector = prequal_new(group)
    elif settings.kind == RING_HASH and settings.ketama:
        selector = ketama_new(group)
    elif settings.kind == RING_HASH:
        selector = ring_new(
            group, settings.minimum_ring_size, settings.maximum_ring_size, settings.murmur, bounded_load_inner(before)
        )
    elif settings.kind == MAGLEV:
        selector = maglev_new(group, settings.table_size)
    elif settings.kind == RENDEZVOUS:
        selector = rendezvous_new(group)
    elif settings.kind == JUMP:
        selector = jump_new(group)
    if selector != NULL and settings.hash_balance_factor:
        shares = group.shares
        group.shares = NULL
        selector = bounded_load_new(selector, shares, settings.hash_balance_factor, settings.kind == RENDEZVOUS)
    return selector
