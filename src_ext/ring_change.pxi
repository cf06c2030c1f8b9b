# A ring made out of the one before it, where few points differ: an endpoint's points are always the first so many of one
# sequence, so a change of membership or weight adds and removes a few at the ends of these sequences. Those are hashed and
# sorted; all others are copied in one pass, in order. The result equals a ring built from scratch, tie for tie.

cdef enum:
    GONE = 0xFFFFFFFF
    CHANGE_LIMIT = 8        # above a changed point in so many a new ring is as cheap

# What differs from the ring before.
cdef struct RingDifference:
    uint32_t* moved         # new member by old member, or GONE
    uint32_t* places        # position in the new group by new member, to break ties
    SpreadKeys added        # owners are new members
    SpreadKeys removed      # owners are new members: points that endpoints which stay have lost


cdef bint ring_change(
    const RingSelector* before, const Group* group, const uint32_t* counts, bint murmur, SpreadKeys* points
) noexcept nogil:
    """False where the rings have too little in common, or without memory; then nothing is allocated."""
    cdef RingDifference difference
    cdef bint built = False
    memset(&difference, 0, sizeof(difference))
    if ring_difference(before, group, counts, murmur, &difference):
        built = ring_merge(before, &difference, points)
    free(difference.moved)
    free(difference.places)
    spread_free(&difference.added)
    spread_free(&difference.removed)
    return built


cdef bint ring_difference(
    const RingSelector* before, const Group* group, const uint32_t* counts, bint murmur, RingDifference* difference
) noexcept nogil:
    cdef uint64_t added = 0
    cdef uint64_t removed = 0
    cdef uint32_t largest = 0
    cdef uint32_t i, old, kept
    for i in range(group.count):
        kept = 0 if group.previous[i] < 0 else before.counts[group.previous[i]]
        added += counts[i] - kept if counts[i] > kept else 0
        removed += kept - counts[i] if kept > counts[i] else 0
        largest = max(largest, group.members[i])
    if added + removed > before.points.count // CHANGE_LIMIT:
        return False
    difference.places = <uint32_t*>malloc((<size_t>largest + 1) * sizeof(uint32_t))
    largest = 0
    for i in range(before.base.count):
        largest = max(largest, before.base.members[i])
    difference.moved = <uint32_t*>malloc((<size_t>largest + 1) * sizeof(uint32_t))
    if difference.moved == NULL or difference.places == NULL:
        return False
    memset(difference.moved, 0xFF, (<size_t>largest + 1) * sizeof(uint32_t))
    for i in range(group.count):
        difference.places[group.members[i]] = i
        if group.previous[i] >= 0:
            difference.moved[before.base.members[group.previous[i]]] = group.members[i]
    return ring_hash_difference(before, group, counts, murmur, added, removed, difference)


cdef bint ring_hash_difference(
    const RingSelector* before, const Group* group, const uint32_t* counts, bint murmur,
    uint64_t added, uint64_t removed, RingDifference* difference,
) noexcept nogil:
    cdef uint64_t* hashes = <uint64_t*>malloc((added + removed + 1) * sizeof(uint64_t))
    cdef uint32_t* owners = <uint32_t*>malloc((added + removed + 1) * sizeof(uint32_t))
    cdef RingHasher hasher
    cdef uint32_t i, kept
    cdef bint built = False
    if hashes != NULL and owners != NULL and hasher_new(&hasher, group, murmur, hashes, owners):
        for i in range(group.count):
            kept = 0 if group.previous[i] < 0 else before.counts[group.previous[i]]
            if counts[i] > kept:
                hasher_add(&hasher, i, kept, counts[i])
        for i in range(group.count):
            kept = 0 if group.previous[i] < 0 else before.counts[group.previous[i]]
            if kept > counts[i]:
                hasher_add(&hasher, i, counts[i], kept)
        free(hasher.text)
        built = spread_sort(hashes, owners, <uint32_t>added, index_bits(added, 0), &difference.added) and spread_sort(
            hashes + added, owners + added, <uint32_t>removed, index_bits(removed, 0), &difference.removed
        )
    free(hashes)
    free(owners)
    return built


cdef bint ring_merge(const RingSelector* before, RingDifference* difference, SpreadKeys* points) noexcept nogil:
    cdef size_t room = <size_t>before.points.count + difference.added.count
    cdef uint64_t* keys = <uint64_t*>malloc((room + 1) * sizeof(uint64_t))
    cdef uint32_t* owners = <uint32_t*>malloc((room + 1) * sizeof(uint32_t))
    cdef uint32_t size = 0
    cdef uint32_t next_added = 0
    cdef uint32_t next_removed = 0
    cdef uint32_t i, owner
    cdef uint64_t key
    if keys == NULL or owners == NULL:
        free(keys)
        free(owners)
        return False
    for i in range(before.points.count):
        key = before.points.keys[i]
        owner = difference.moved[before.points.owners[i]]
        while next_added < difference.added.count and difference.added.keys[next_added] < key:
            keys[size] = difference.added.keys[next_added]
            owners[size] = difference.added.owners[next_added]
            next_added += 1
            size += 1
        if owner == <uint32_t>GONE or lost_point(&difference.removed, &next_removed, key, owner):
            continue
        keys[size] = key
        owners[size] = owner
        size += 1
    while next_added < difference.added.count:
        keys[size] = difference.added.keys[next_added]
        owners[size] = difference.added.owners[next_added]
        next_added += 1
        size += 1
    order_ties(keys, owners, size, difference.places)
    return spread_index(keys, owners, size, ring_index_bits(size), points)


cdef inline bint lost_point(
    const SpreadKeys* removed, uint32_t* position, uint64_t key, uint32_t owner
) noexcept nogil:
    """Whether this point is among the removed; `position` follows the keys upwards."""
    cdef uint32_t i
    while position[0] < removed.count and removed.keys[position[0]] < key:
        position[0] += 1
    i = position[0]
    while i < removed.count and removed.keys[i] == key:
        if removed.owners[i] == owner:
            return True
        i += 1
    return False


cdef void order_ties(uint64_t* keys, uint32_t* owners, uint32_t size, const uint32_t* places) noexcept nogil:
    """Of equal keys the endpoint that stands first in the cluster comes first."""
    cdef uint32_t i, j, owner
    for i in range(1, size):
        j = i
        owner = owners[i]
        while j > 0 and keys[j - 1] == keys[i] and places[owners[j - 1]] > places[owner]:
            owners[j] = owners[j - 1]
            j -= 1
        owners[j] = owner
