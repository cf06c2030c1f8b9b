# Jump consistent hashing, for numbered shards: endpoint i, in the order given, is shard i. No table, and shares are even;
# but shards come and go only at the end. Source: Lamping and Veach, arXiv:1406.2294.
#
# Shards keep their numbers whatever their health: where a key's shard is out, the key is hashed again, so only the keys of
# that shard move, and they spread over all others.

cdef enum: JUMP_ATTEMPTS = 64     # a shard, before the first usable one is taken


cdef Selector* jump_new(Group* group) noexcept nogil:
    cdef Selector* selector = <Selector*>selector_new(sizeof(Selector), group)
    if selector == NULL:
        return NULL
    selector.choose = jump_choose
    selector.choose_many = choose_one_by_one
    selector.reserve = reserve_nothing
    selector.attempt = jump_attempt
    return selector


cdef inline uint32_t jump_shard(uint64_t hash, uint32_t count) noexcept nogil:
    cdef int64_t shard = -1
    cdef int64_t following = 0
    while following < count:
        shard = following
        hash = hash * <uint64_t>2862933555777941757ULL + 1
        following = <int64_t>(<double>(shard + 1) * (<double>(<int64_t>1 << 31) / <double>((hash >> 33) + 1)))
    return <uint32_t>shard


cdef int32_t jump_attempt(Selector* selector, uint64_t hash, uint32_t attempt) noexcept nogil:
    """The shard of the key, or of the key hashed again; NO_MEMBER where it is out."""
    if attempt:
        hash = wyrand_mix(hash + attempt * <uint64_t>0xA0761D6478BD642FULL)
    cdef uint32_t shard = jump_shard(hash, selector.count)
    return <int32_t>selector.members[shard] if selector_may_use(selector, shard) else NO_MEMBER


cdef int32_t jump_choose(Selector* selector, Draw* draw, uint64_t hash) noexcept nogil:
    cdef int32_t member = NO_MEMBER
    cdef uint32_t attempt
    for attempt in range(selector.count * JUMP_ATTEMPTS):
        member = jump_attempt(selector, hash, attempt)
        if member != NO_MEMBER:
            return member
    for attempt in range(selector.count):
        if selector_may_use(selector, attempt):
            return <int32_t>selector.members[attempt]
    return NO_MEMBER
