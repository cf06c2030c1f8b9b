# Jump consistent hashing, for numbered shards: endpoint i, in the order given, is shard i. No table, and shares are even;
# but shards come and go only at the end. Source: Lamping and Veach, arXiv:1406.2294.
#
# Shards keep their numbers whatever their health: where a key's shard is out, the key is hashed again, so only the keys of
# that shard move, and they spread over all others.

cdef enum: JUMP_ATTEMPTS = 64

cdef struct JumpSelector:
    Selector base
    const uint8_t* availability     # by member; the snapshot's
    Availability wanted             # UNAVAILABLE: any will do


cdef Selector* jump_new(Group* group) noexcept nogil:
    cdef JumpSelector* selector = <JumpSelector*>selector_new(sizeof(JumpSelector), group)
    if selector == NULL:
        return NULL
    selector.availability = group.availability
    selector.wanted = group.wanted
    selector.base.choose = jump_choose
    selector.base.choose_many = choose_one_by_one
    selector.base.reserve = reserve_nothing
    selector.base.attempt = jump_attempt
    return &selector.base


cdef inline uint32_t jump_shard(uint64_t hash, uint32_t count) noexcept nogil:
    cdef int64_t shard = -1
    cdef int64_t following = 0
    while following < count:
        shard = following
        hash = hash * <uint64_t>2862933555777941757ULL + 1
        following = <int64_t>(<double>(shard + 1) * (<double>(<int64_t>1 << 31) / <double>((hash >> 33) + 1)))
    return <uint32_t>shard


cdef inline bint jump_may_use(const JumpSelector* selector, uint32_t shard) noexcept nogil:
    return selector.wanted == UNAVAILABLE or selector.availability[selector.base.members[shard]] == <uint8_t>selector.wanted


cdef int32_t jump_attempt(Selector* base, uint64_t hash, uint32_t attempt) noexcept nogil:
    cdef JumpSelector* selector = <JumpSelector*>base
    cdef uint32_t found = 0
    cdef uint32_t tries, shard
    cdef uint32_t limit = base.count * JUMP_ATTEMPTS + attempt
    for tries in range(limit):
        shard = jump_shard(hash if tries == 0 else wyrand_mix(hash + tries * <uint64_t>0xA0761D6478BD642FULL), base.count)
        if jump_may_use(selector, shard):
            if found == attempt:
                return <int32_t>base.members[shard]
            found += 1
    for shard in range(base.count):
        if jump_may_use(selector, shard):
            return <int32_t>base.members[shard]
    return NO_MEMBER


cdef int32_t jump_choose(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    return jump_attempt(base, hash, 0)
