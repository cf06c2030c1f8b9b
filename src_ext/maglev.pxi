# Maglev: each endpoint fills slots of a table of prime size in the order of its own permutation, in turns by weight; a key
# belongs to the slot at hash modulo size. The table is Envoy's (maglev_lb.cc) slot for slot; source of the algorithm:
# Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, listing 1.
# Endpoints with equal hash keys, which Envoy orders by address in memory, go in the cluster's order here.

from libc.stdlib cimport qsort
from libc.string cimport memcmp

cdef struct MaglevSelector:
    Selector base
    Divisor size
    uint16_t* narrow        # members, while all of them fit 16 bits: half the cache
    uint32_t* wide

cdef struct MaglevEntry:
    const char* key
    Py_ssize_t key_size
    uint32_t position       # in the group
    uint32_t slot           # where its permutation stands
    uint32_t skip
    double share
    double target


cdef Selector* maglev_new(Group* group, uint32_t table_size) noexcept nogil:
    cdef MaglevSelector* selector
    cdef uint32_t* table = maglev_table(group, table_size)
    cdef uint16_t* narrow = NULL
    cdef bint fits = True
    cdef uint32_t i
    if table == NULL:
        return NULL
    for i in range(group.count):
        fits = fits and group.members[i] <= 0xFFFF
    if fits:
        narrow = <uint16_t*>malloc(table_size * sizeof(uint16_t))
        if narrow != NULL:
            for i in range(table_size):
                narrow[i] = <uint16_t>table[i]
            free(table)
            table = NULL
    selector = <MaglevSelector*>selector_new(sizeof(MaglevSelector), group)
    if selector == NULL:
        free(table)
        free(narrow)
        return NULL
    divisor_set(&selector.size, table_size)
    selector.narrow = narrow
    selector.wide = table
    selector.base.choose = maglev_choose if table == NULL else maglev_choose_wide
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


cdef int maglev_order(const void* left, const void* right) noexcept nogil:
    cdef const MaglevEntry* a = <const MaglevEntry*>left
    cdef const MaglevEntry* b = <const MaglevEntry*>right
    cdef int order = memcmp(a.key, b.key, min(a.key_size, b.key_size))
    if order:
        return order
    if a.key_size != b.key_size:
        return -1 if a.key_size < b.key_size else 1
    return -1 if a.position < b.position else 1


cdef uint32_t* maglev_table(const Group* group, uint32_t size) noexcept nogil:
    """Members by slot; NULL without memory."""
    cdef MaglevEntry* entries = <MaglevEntry*>malloc(group.count * sizeof(MaglevEntry))
    cdef uint32_t* table = <uint32_t*>malloc(size * sizeof(uint32_t))
    cdef double largest = 0.0
    cdef uint32_t i
    if entries == NULL or table == NULL:
        free(entries)
        free(table)
        return NULL
    for i in range(group.count):
        entries[i].key = group.hash_keys[i]
        entries[i].key_size = group.hash_key_sizes[i]
        entries[i].position = i
        entries[i].slot = <uint32_t>(xxh64(group.hash_keys[i], group.hash_key_sizes[i], 0) % size)
        entries[i].skip = <uint32_t>(xxh64(group.hash_keys[i], group.hash_key_sizes[i], 1) % (size - 1)) + 1
        entries[i].share = group.shares[i]
        entries[i].target = 0.0
        largest = max(largest, group.shares[i])
    qsort(entries, group.count, sizeof(MaglevEntry), maglev_order)
    memset(table, 0xFF, size * sizeof(uint32_t))
    maglev_fill(table, size, entries, group.count, largest, group.members)
    free(entries)
    return table


cdef void maglev_fill(
    uint32_t* table, uint32_t size, MaglevEntry* entries, uint32_t count, double largest, const uint32_t* members
) noexcept nogil:
    cdef uint32_t filled = 0
    cdef uint32_t round = 0
    cdef uint32_t i, slot, skip
    cdef MaglevEntry* entry
    while filled < size:
        round += 1
        for i in range(count):
            entry = &entries[i]
            # Envoy's own floating-point test: the heaviest endpoint takes a slot each round, the others fall behind.
            if round * entry.share < entry.target:
                continue
            entry.target += largest
            slot = entry.slot
            skip = entry.skip
            while table[slot] != 0xFFFFFFFFU:
                slot += skip
                if slot >= size:
                    slot -= size
            table[slot] = members[entry.position]
            slot += skip
            entry.slot = slot - size if slot >= size else slot
            filled += 1
            if filled == size:
                break
