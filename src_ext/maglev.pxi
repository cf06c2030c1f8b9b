# Maglev: each endpoint fills slots of a table of prime size in the order of its own permutation, in turns by weight; a key
# belongs to the slot at hash modulo size. The table is Envoy's (maglev_lb.cc) slot for slot; source of the algorithm:
# Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, listing 1.

cdef struct MaglevSelector:
    Selector base
    Divisor size
    uint16_t* narrow        # members, while all of them fit 16 bits: half the cache
    uint32_t* wide


cdef Selector* maglev_new(Group* group, uint32_t table_size) noexcept nogil:
    cdef MaglevSelector* selector
    cdef uint16_t* narrow = NULL
    cdef uint32_t* wide = NULL
    cdef bint fits = True
    cdef uint32_t i
    for i in range(group.count):
        fits = fits and group.members[i] <= 0xFFFF
    if fits:
        narrow = <uint16_t*>malloc(table_size * sizeof(uint16_t))
    else:
        wide = <uint32_t*>malloc(table_size * sizeof(uint32_t))
    if (narrow == NULL and wide == NULL) or not maglev_fill(group, table_size, narrow, wide):
        free(narrow)
        free(wide)
        return NULL
    selector = <MaglevSelector*>selector_new(sizeof(MaglevSelector), group)
    if selector == NULL:
        free(narrow)
        free(wide)
        return NULL
    divisor_set(&selector.size, table_size)
    selector.narrow = narrow
    selector.wide = wide
    selector.base.choose = maglev_choose if fits else maglev_choose_wide
    selector.base.choose_many = maglev_choose_many
    selector.base.reserve = reserve_nothing
    selector.base.attempt = maglev_attempt
    selector.base.free = maglev_free
    return &selector.base


cdef void maglev_free(Selector* base) noexcept nogil:
    free((<MaglevSelector*>base).narrow)
    free((<MaglevSelector*>base).wide)
    selector_free(base)


cdef int32_t maglev_choose(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef const MaglevSelector* selector = <const MaglevSelector*>base
    return selector.narrow[remainder_of(hash, &selector.size)]


cdef int32_t maglev_choose_wide(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef const MaglevSelector* selector = <const MaglevSelector*>base
    return <int32_t>selector.wide[remainder_of(hash, &selector.size)]


cdef void maglev_choose_many(
    Selector* base, Draw* draw, const uint64_t* hashes, int32_t* out, Py_ssize_t count
) noexcept nogil:
    cdef const MaglevSelector* selector = <const MaglevSelector*>base
    cdef Divisor size = selector.size
    cdef const uint16_t* narrow = selector.narrow
    cdef const uint32_t* wide = selector.wide
    cdef Py_ssize_t i
    if narrow != NULL:
        for i in range(count):
            out[i] = narrow[remainder_of(hashes[i], &size)]
    else:
        for i in range(count):
            out[i] = <int32_t>wide[remainder_of(hashes[i], &size)]


cdef int32_t maglev_attempt(Selector* base, uint64_t hash, uint32_t attempt) noexcept nogil:
    if attempt:
        hash ^= <uint64_t>0 - <uint64_t>attempt
    return base.choose(base, NULL, hash)
