# A policy's settings as the core reads them. A new policy is a file with its selector, and a line here and in each
# function of policy_making.pxi.

cdef enum PolicyKind:
    ROUND_ROBIN
    RANDOM
    LEAST_REQUEST
    PEAK_EWMA
    ADAPTIVE
    CLIENT_SIDE_WEIGHTED_ROUND_ROBIN
    PREQUAL
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
    double decay_time       # ns
    double default_rtt      # ns
    double penalty          # ns
    double recovery_time    # ns
    double memory           # samples
    double sample_limit
    double error_penalty
    int64_t blackout_period             # ns
    int64_t weight_expiration_period    # ns
    int64_t weight_update_period        # ns
    double error_utilization_penalty
    uint32_t pool_size      # probes
    int64_t max_age         # ns
    double probes_per_pick
    double removals_per_pick
    double reuse_slack
    double hot_quantile     # 0 to 1
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
    elif name == "PeakEwma":
        settings.kind = PEAK_EWMA
        settings.choice_count = policy.choice_count
        settings.full_scan = policy.selection_method == "full_scan"
        settings.decay_time = policy.decay_time * 1e9
        settings.default_rtt = policy.default_rtt * 1e9
        settings.penalty = policy.penalty_value * 1e6
        settings.error_penalty = policy.error_penalty
    elif name == "Adaptive":
        settings.kind = ADAPTIVE
        settings.recovery_time = policy.recovery_time * 1e9
        settings.memory = policy.memory
        settings.sample_limit = policy.sample_limit
        settings.error_penalty = policy.error_penalty
    elif name == "ClientSideWeightedRoundRobin":
        settings.kind = CLIENT_SIDE_WEIGHTED_ROUND_ROBIN
        settings.blackout_period = <int64_t>(policy.blackout_period * 1e9)
        settings.weight_expiration_period = <int64_t>(policy.weight_expiration_period * 1e9)
        settings.weight_update_period = <int64_t>(policy.weight_update_period * 1e9)
        settings.error_utilization_penalty = policy.error_utilization_penalty
    elif name == "Prequal":
        settings.kind = PREQUAL
        settings.pool_size = policy.pool_size
        settings.max_age = <int64_t>(policy.max_age * 1e9)
        settings.probes_per_pick = policy.probes_per_pick
        settings.removals_per_pick = policy.removals_per_pick
        settings.reuse_slack = policy.reuse_slack
        settings.hot_quantile = policy.hot_quantile
        settings.error_penalty = policy.error_penalty
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
