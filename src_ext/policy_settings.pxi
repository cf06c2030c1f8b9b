# A policy's settings as the core reads them, and the one place where a policy becomes a selector. A new policy is a file
# with its selector, and a line in each of the two functions here.

cdef enum PolicyKind:
    ROUND_ROBIN
    RANDOM
    LEAST_REQUEST
    RING_HASH
    MAGLEV
    RENDEZVOUS
    JUMP

cdef struct PolicySettings:
    PolicyKind kind
    bint hashes             # a key decides
    bint hashes_endpoints   # by hashes of the endpoints' own keys
    uint32_t choice_count
    bint full_scan
    double active_request_bias
    uint64_t minimum_ring_size
    uint64_t maximum_ring_size
    bint murmur
    bint ketama             # points and keys as libketama places them
    uint32_t table_size
    bint use_hostname_for_hashing
    uint32_t hash_balance_factor    # percent; 0: unbounded
    SlowStartRamp ramp


cdef void policy_read(PolicySettings* settings, str name, object policy) except *:
    """Reads the validated fields of a policy value (lbcore/policy.py)."""
    memset(settings, 0, sizeof(PolicySettings))
    if name == "RoundRobin":
        settings.kind = ROUND_ROBIN
    elif name == "Random":
        settings.kind = RANDOM
    elif name == "LeastRequest":
        settings.kind = LEAST_REQUEST
        settings.choice_count = policy.choice_count
        settings.full_scan = policy.selection_method == "full_scan"
        settings.active_request_bias = policy.active_request_bias
    elif name == "RingHash":
        settings.kind = RING_HASH
        settings.minimum_ring_size = policy.minimum_ring_size
        settings.maximum_ring_size = policy.maximum_ring_size
        settings.murmur = policy.hash_function == "murmur_hash_2"
        settings.ketama = policy.point_layout == "ketama"
    elif name == "Maglev":
        settings.kind = MAGLEV
        settings.table_size = policy.table_size
    elif name == "Rendezvous":
        settings.kind = RENDEZVOUS
    elif name == "Jump":
        settings.kind = JUMP
    else:
        raise TypeError(f"policy {policy!r}: expected one of lbcore's policies")
    settings.hashes = settings.kind >= RING_HASH
    if settings.hashes and settings.kind != JUMP:
        settings.hashes_endpoints = True
        settings.use_hostname_for_hashing = policy.use_hostname_for_hashing
        settings.hash_balance_factor = policy.hash_balance_factor or 0
    slow_start = getattr(policy, "slow_start", None)
    if slow_start is not None:
        settings.ramp.window = <int64_t>(slow_start.slow_start_window * 1e9)
        settings.ramp.exponent = 1.0 / slow_start.aggression
        settings.ramp.smallest = slow_start.min_weight_percent / 100.0


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
