# Sorting 64-bit keys that are spread evenly, such as hashes: one counting pass over their top bits, one scatter, and a
# short insertion sort in each bucket. The bucket starts are the index by which a ring is searched, so sorting yields it
# for nothing. Stable: equal keys stay in the order in which they came. A bucket that is crowded and out of order (which
# even keys never make, but chosen ones could) is merged instead, so the cost stays n log n.

cdef enum: INSERTION_SORT_LIMIT = 32

cdef struct SpreadKeys:
    uint64_t* keys          # count + 1 entries: the last is the caller's, for a sentinel
    uint32_t* owners
    uint32_t* starts        # first position of each bucket, and one past the last; 2^bits + 1 entries
    uint32_t bits           # leading bits that name the bucket; 1 to 31
    uint32_t count


cdef bint spread_sort(
    const uint64_t* keys, const uint32_t* owners, uint32_t count, uint32_t bits, SpreadKeys* out
) noexcept nogil:
    """Sorts (key, owner) pairs into newly allocated arrays. False without memory; then nothing stays allocated."""
    cdef uint32_t buckets = <uint32_t>1 << bits
    cdef uint32_t shift = 64 - bits
    cdef uint32_t i, bucket, position
    cdef uint32_t* next_in = <uint32_t*>malloc(buckets * sizeof(uint32_t))
    out.bits = bits
    out.count = count
    out.keys = <uint64_t*>table_new((<size_t>count + 1) * sizeof(uint64_t))
    out.owners = <uint32_t*>table_new((<size_t>count + 1) * sizeof(uint32_t))
    out.starts = <uint32_t*>table_new((<size_t>buckets + 1) * sizeof(uint32_t))
    if next_in == NULL or out.keys == NULL or out.owners == NULL or out.starts == NULL:
        free(next_in)
        spread_free(out)
        return False
    memset(out.starts, 0, (<size_t>buckets + 1) * sizeof(uint32_t))
    for i in range(count):
        out.starts[(keys[i] >> shift) + 1] += 1
    for bucket in range(buckets):
        next_in[bucket] = out.starts[bucket]
        out.starts[bucket + 1] += out.starts[bucket]
    for i in range(count):
        bucket = <uint32_t>(keys[i] >> shift)
        position = next_in[bucket]
        next_in[bucket] = position + 1
        out.keys[position] = keys[i]
        out.owners[position] = owners[i]
    free(next_in)
    for bucket in range(buckets):
        if not sort_bucket(out.keys, out.owners, out.starts[bucket], out.starts[bucket + 1]):
            spread_free(out)
            return False
    return True


cdef bint spread_index(uint64_t* keys, uint32_t* owners, uint32_t count, uint32_t bits, SpreadKeys* out) noexcept nogil:
    """Takes over pairs that are sorted already, with room for one more, and indexes them; frees them without memory."""
    cdef uint32_t buckets = <uint32_t>1 << bits
    cdef uint32_t shift = 64 - bits
    cdef uint32_t bucket = 0
    cdef uint32_t i
    cdef uint32_t* starts = <uint32_t*>malloc((<size_t>buckets + 1) * sizeof(uint32_t))
    if starts == NULL:
        free(keys)
        free(owners)
        return False
    for i in range(count):
        while bucket <= keys[i] >> shift:
            starts[bucket] = i
            bucket += 1
    while bucket <= buckets:
        starts[bucket] = count
        bucket += 1
    out.keys = keys
    out.owners = owners
    out.starts = starts
    out.bits = bits
    out.count = count
    return True


cdef void spread_free(SpreadKeys* sorted_keys) noexcept nogil:
    table_free(sorted_keys.keys, (<size_t>sorted_keys.count + 1) * sizeof(uint64_t))
    table_free(sorted_keys.owners, (<size_t>sorted_keys.count + 1) * sizeof(uint32_t))
    table_free(sorted_keys.starts, ((<size_t>1 << sorted_keys.bits) + 1) * sizeof(uint32_t))
    memset(sorted_keys, 0, sizeof(SpreadKeys))


cdef inline bint sort_bucket(uint64_t* keys, uint32_t* owners, uint32_t start, uint32_t end) noexcept nogil:
    cdef uint32_t i, j, owner
    cdef uint64_t key
    if end - start > INSERTION_SORT_LIMIT:
        for i in range(start + 1, end):
            if keys[i] < keys[i - 1]:
                return merge_bucket(keys + start, owners + start, end - start)
        return True
    for i in range(start + 1, end):
        key = keys[i]
        owner = owners[i]
        j = i
        while j > start and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            owners[j] = owners[j - 1]
            j -= 1
        keys[j] = key
        owners[j] = owner
    return True


cdef bint merge_bucket(uint64_t* keys, uint32_t* owners, uint32_t count) noexcept nogil:
    """Bottom-up merge sort in place, with as much memory again."""
    cdef uint64_t* from_keys = keys
    cdef uint32_t* from_owners = owners
    cdef uint64_t* spare_keys = <uint64_t*>malloc(count * sizeof(uint64_t))
    cdef uint32_t* spare_owners = <uint32_t*>malloc(count * sizeof(uint32_t))
    cdef uint64_t* to_keys = spare_keys
    cdef uint32_t* to_owners = spare_owners
    cdef uint64_t width = 1
    cdef uint64_t low, middle, high, left, right, position
    if spare_keys == NULL or spare_owners == NULL:
        free(spare_keys)
        free(spare_owners)
        return False
    while width < count:
        low = 0
        while low < count:
            middle = min(low + width, <uint64_t>count)
            high = min(low + 2 * width, <uint64_t>count)
            left = low
            right = middle
            for position in range(low, high):
                if left < middle and (right >= high or from_keys[left] <= from_keys[right]):
                    to_keys[position] = from_keys[left]
                    to_owners[position] = from_owners[left]
                    left += 1
                else:
                    to_keys[position] = from_keys[right]
                    to_owners[position] = from_owners[right]
                    right += 1
            low += 2 * width
        from_keys, to_keys = to_keys, from_keys
        from_owners, to_owners = to_owners, from_owners
        width *= 2
    if from_keys != keys:
        memcpy(keys, from_keys, count * sizeof(uint64_t))
        memcpy(owners, from_owners, count * sizeof(uint32_t))
    free(spare_keys)
    free(spare_owners)
    return True
