# A ring made out of the one before it, where few points differ: an endpoint's points are always the first so many of one
# sequence, so a change of membership or weight adds and removes a few at the ends of these sequences. Only those are hashed
# and sorted; what lies between them is copied as it is. The result equals a ring built from scratch, tie for tie.

cdef enum: CHANGE_LIMIT = 8     # above one changed point in so many, a new ring is as cheap

# What differs from the ring before.
cdef struct RingDifference:
    uint32_t* moved         # new member by old member; whatever for those that are gone, whose points are all dropped
    bint renumbered         # some member has another number now
    bint reordered          # those that stay stand in another order now
    uint32_t* places        # position in the new group by new member, to break ties
    SpreadKeys added        # owners are new members
    SpreadKeys dropped      # owners are old members
    uint32_t* drops         # positions in the ring before of the dropped points, upwards


cdef bint ring_change(
    const RingSelector* before, const Group* group, const uint32_t* counts, bint murmur, SpreadKeys* points
) noexcept nogil:
    """False where the rings have too little in common, or without memory; then nothing is allocated."""
    cdef RingDifference difference
    cdef bint built = False
    memset(&difference, 0, sizeof(difference))
    if ring_map(before, group, &difference) and ring_difference(before, group, counts, murmur, &difference):
        built = ring_merge(before, &difference, points)
    free(difference.moved)
    free(difference.places)
    free(difference.drops)
    spread_free(&difference.added)
    spread_free(&difference.dropped)
    return built


cdef bint ring_map(const RingSelector* before, const Group* group, RingDifference* difference) noexcept nogil:
    cdef uint32_t largest = 0
    cdef uint32_t i, old
    cdef int32_t last = -1
    for i in range(group.count):
        largest = max(largest, group.members[i])
    for i in range(before.base.count):
        largest = max(largest, before.base.members[i])
    difference.places = <uint32_t*>calloc(<size_t>largest + 1, sizeof(uint32_t))
    difference.moved = <uint32_t*>calloc(<size_t>largest + 1, sizeof(uint32_t))
    if difference.moved == NULL or difference.places == NULL:
        return False
    for i in range(group.count):
        difference.places[group.members[i]] = i
        if group.previous[i] >= 0:
            old = before.base.members[group.previous[i]]
            difference.moved[old] = group.members[i]
            difference.renumbered = difference.renumbered or old != group.members[i]
            difference.reordered = difference.reordered or group.previous[i] < last
            last = group.previous[i]
    return True


cdef bint ring_difference(
    const RingSelector* before, const Group* group, const uint32_t* counts, bint murmur, RingDifference* difference
) noexcept nogil:
    cdef uint64_t added = 0
    cdef uint64_t dropped = 0
    cdef uint32_t i, kept
    for i in range(group.count):
        kept = 0 if group.previous[i] < 0 else before.counts[group.previous[i]]
        added += counts[i] - kept if counts[i] > kept else 0
        dropped += kept - counts[i] if kept > counts[i] else 0
    for i in range(group.gone_count):
        dropped += before.counts[group.gone[i]]
    if added + dropped > before.points.count // CHANGE_LIMIT:
        return False
    difference.drops = <uint32_t*>malloc((dropped + 1) * sizeof(uint32_t))
    if difference.drops == NULL or not ring_hash_difference(before, group, counts, murmur, added, dropped, difference):
        return False
    ring_find_drops(before, difference)
    return True


cdef bint ring_hash_difference(
    const RingSelector* before, const Group* group, const uint32_t* counts, bint murmur,
    uint64_t added, uint64_t dropped, RingDifference* difference,
) noexcept nogil:
    cdef uint64_t* hashes = <uint64_t*>malloc((added + dropped + 1) * sizeof(uint64_t))
    cdef uint32_t* owners = <uint32_t*>malloc((added + dropped + 1) * sizeof(uint32_t))
    cdef RingHasher hasher
    cdef uint32_t i, kept
    cdef bint built = False
    if hashes != NULL and owners != NULL and hasher_new(&hasher, group, murmur, hashes, owners):
        for i in range(group.count):
            kept = 0 if group.previous[i] < 0 else before.counts[group.previous[i]]
            if counts[i] > kept:
                hasher_add(&hasher, group.hash_keys[i], group.hash_key_sizes[i], group.members[i], kept, counts[i])
        for i in range(group.count):
            kept = 0 if group.previous[i] < 0 else before.counts[group.previous[i]]
            if kept > counts[i]:
                hasher_add(
                    &hasher, group.hash_keys[i], group.hash_key_sizes[i],
                    before.base.members[group.previous[i]], counts[i], kept,
                )
        for i in range(group.gone_count):
            hasher_add(
                &hasher, group.gone_keys[i], group.gone_key_sizes[i],
                before.base.members[group.gone[i]], 0, before.counts[group.gone[i]],
            )
        free(hasher.text)
        built = spread_sort(hashes, owners, <uint32_t>added, index_bits(added, 0), &difference.added) and spread_sort(
            hashes + added, owners + added, <uint32_t>dropped, index_bits(dropped, 0), &difference.dropped
        )
    free(hashes)
    free(owners)
    return built


cdef void ring_find_drops(const RingSelector* before, RingDifference* difference) noexcept nogil:
    cdef uint32_t i, j, position
    for i in range(difference.dropped.count):
        position = ring_position(before, difference.dropped.keys[i])
        while before.points.owners[position] != difference.dropped.owners[i]:
            position += 1   # points of others with the same hash
        j = i
        while j > 0 and difference.drops[j - 1] > position:
            difference.drops[j] = difference.drops[j - 1]
            j -= 1
        difference.drops[j] = position


# Where a merge stands: what has been written of the new ring, and read of the one before.
cdef struct RingMerge:
    const RingSelector* before
    const RingDifference* difference
    uint64_t* keys
    uint32_t* owners
    uint32_t size
    uint32_t read
    uint32_t* inserted      # positions of the added points
    uint32_t* starts        # NULL where the index has another size, and is made anew
    uint32_t bucket         # starts below it are written


cdef bint ring_merge(const RingSelector* before, RingDifference* difference, SpreadKeys* points) noexcept nogil:
    cdef uint32_t size = before.points.count + difference.added.count - difference.dropped.count
    cdef uint32_t bits = ring_index_bits(size)
    cdef RingMerge merge
    memset(&merge, 0, sizeof(merge))
    merge.before = before
    merge.difference = difference
    merge.keys = <uint64_t*>table_new((<size_t>size + 1) * sizeof(uint64_t))
    merge.owners = <uint32_t*>table_new((<size_t>size + 1) * sizeof(uint32_t))
    merge.inserted = <uint32_t*>malloc((<size_t>difference.added.count + 1) * sizeof(uint32_t))
    if bits == before.points.bits:
        merge.starts = <uint32_t*>table_new(((<size_t>1 << bits) + 1) * sizeof(uint32_t))
    if merge.keys == NULL or merge.owners == NULL or merge.inserted == NULL:
        free(merge.keys)
        free(merge.owners)
        free(merge.inserted)
        free(merge.starts)
        return False
    ring_merge_changes(&merge)
    ring_copy_until(&merge, before.points.count)
    if difference.reordered:
        order_ties(merge.keys, merge.owners, 0, size, difference.places)
    else:
        order_ties_of_added(&merge)
    free(merge.inserted)
    if merge.starts == NULL:
        return spread_index(merge.keys, merge.owners, size, bits, points)
    ring_index_until(&merge, 0xFFFFFFFFFFFFFFFFULL)
    merge.starts[<uint32_t>1 << bits] = size
    points.keys = merge.keys
    points.owners = merge.owners
    points.starts = merge.starts
    points.bits = bits
    points.count = size
    return True


cdef void ring_merge_changes(RingMerge* merge) noexcept nogil:
    cdef const SpreadKeys* added = &merge.difference.added
    cdef const SpreadKeys* old = &merge.before.points
    cdef uint32_t next_added = 0
    cdef uint32_t next_drop = 0
    cdef uint32_t drop
    while next_added < added.count or next_drop < merge.difference.dropped.count:
        drop = old.count
        if next_drop < merge.difference.dropped.count:
            drop = merge.difference.drops[next_drop]
        if next_added < added.count and (drop == old.count or added.keys[next_added] <= old.keys[drop]):
            ring_copy_until(merge, min(ring_position(merge.before, added.keys[next_added]), old.count))
            ring_index_until(merge, added.keys[next_added])
            merge.keys[merge.size] = added.keys[next_added]
            merge.owners[merge.size] = added.owners[next_added]
            merge.inserted[next_added] = merge.size
            merge.size += 1
            next_added += 1
        else:
            ring_copy_until(merge, drop)
            ring_index_until(merge, old.keys[drop])
            merge.read = drop + 1
            next_drop += 1


cdef void ring_copy_until(RingMerge* merge, uint32_t end) noexcept nogil:
    """Copies the points of the ring before up to a position; a no-op where it has been passed."""
    cdef uint32_t i
    cdef uint32_t count
    cdef uint32_t* out
    cdef const uint32_t* owners
    cdef const uint32_t* moved = merge.difference.moved
    if end <= merge.read:
        return
    count = end - merge.read
    memcpy(merge.keys + merge.size, merge.before.points.keys + merge.read, count * sizeof(uint64_t))
    out = merge.owners + merge.size
    owners = merge.before.points.owners + merge.read
    if merge.difference.renumbered:
        for i in range(count):
            out[i] = moved[owners[i]]
    else:
        memcpy(out, owners, count * sizeof(uint32_t))
    merge.size += count
    merge.read = end


cdef void ring_index_until(RingMerge* merge, uint64_t key) noexcept nogil:
    """Writes the starts up to the bucket of a key: they shift by as much as the new ring has gained so far."""
    cdef uint32_t end, shift, i
    cdef const uint32_t* starts = merge.before.points.starts
    if merge.starts == NULL:
        return
    end = <uint32_t>(key >> merge.before.shift) + 1
    shift = merge.size - merge.read     # modulo 2^32, as are the sums
    for i in range(merge.bucket, end):
        merge.starts[i] = starts[i] + shift
    merge.bucket = max(merge.bucket, end)


cdef void order_ties_of_added(RingMerge* merge) noexcept nogil:
    """Those that stay keep their order, so a tie can be wrong only where a point has been added."""
    cdef uint32_t i, start, end
    for i in range(merge.difference.added.count):
        start = merge.inserted[i]
        end = start + 1
        while start > 0 and merge.keys[start - 1] == merge.keys[start]:
            start -= 1
        while end < merge.size and merge.keys[end] == merge.keys[start]:
            end += 1
        order_ties(merge.keys, merge.owners, start, end, merge.difference.places)


cdef void order_ties(
    uint64_t* keys, uint32_t* owners, uint32_t start, uint32_t end, const uint32_t* places
) noexcept nogil:
    """Of equal keys the endpoint that stands first in the cluster comes first."""
    cdef uint32_t i, j, owner
    for i in range(start + 1, end):
        if lb_likely(keys[i - 1] != keys[i]):
            continue
        j = i
        owner = owners[i]
        while j > start and keys[j - 1] == keys[i] and places[owners[j - 1]] > places[owner]:
            owners[j] = owners[j - 1]
            j -= 1
        owners[j] = owner
