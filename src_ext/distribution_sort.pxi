# Sorting 64-bit keys that are spread evenly, such as hashes: one counting pass over their top bits, one scatter, and a
# short insertion sort in each bucket. Many keys are first divided into parts that fit the cache, by fewer bits. The bucket
# starts are the index by which a ring is searched, so sorting yields it for nothing. Stable: equal keys stay in the order
# in which they came. A bucket that is crowded and out of order (which even keys never make, but chosen ones could) is
# merged instead, so the cost stays n log n.

cdef enum:
    INSERTION_SORT_LIMIT = 32
    PART_BITS = 13      # a part has as many buckets, and about as many keys: 100 KiB of them

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
    cdef uint32_t part_bits = bits - min(bits, <uint32_t>PART_BITS)
    cdef uint32_t parts = <uint32_t>1 << part_bits
    cdef uint32_t buckets = <uint32_t>1 << (bits - part_bits)
    cdef uint32_t part, largest
    cdef bint sorted_all = True
    cdef uint32_t* part_starts = <uint32_t*>calloc(<size_t>parts + 1, sizeof(uint32_t))
    cdef uint32_t* next_in = <uint32_t*>malloc(max(parts, buckets) * sizeof(uint32_t))
    cdef SpreadKeys spare
    out.bits = bits
    out.count = count
    out.keys = <uint64_t*>table_new((<size_t>count + 1) * sizeof(uint64_t))
    out.owners = <uint32_t*>table_new((<size_t>count + 1) * sizeof(uint32_t))
    out.starts = <uint32_t*>table_new(((<size_t>1 << bits) + 1) * sizeof(uint32_t))
    memset(&spare, 0, sizeof(spare))
    sorted_all = part_starts != NULL and next_in != NULL and out.keys != NULL and out.owners != NULL and out.starts != NULL
    if sorted_all:
        out.starts[<size_t>1 << bits] = count
        if parts == 1:
            sorted_all = sort_part(keys, owners, count, 0, 0, buckets, next_in, out)
        else:
            largest = divide_into_parts(keys, owners, count, part_bits, part_starts, next_in, out)
            spare.keys = <uint64_t*>malloc(largest * sizeof(uint64_t))
            spare.owners = <uint32_t*>malloc(largest * sizeof(uint32_t))
            sorted_all = spare.keys != NULL and spare.owners != NULL
            for part in range(parts):
                if not sorted_all:
                    break
                count = part_starts[part + 1] - part_starts[part]
                memcpy(spare.keys, out.keys + part_starts[part], count * sizeof(uint64_t))
                memcpy(spare.owners, out.owners + part_starts[part], count * sizeof(uint32_t))
                sorted_all = sort_part(
                    spare.keys, spare.owners, count, part_starts[part], part * buckets, buckets, next_in, out
                )
    free(spare.keys)
    free(spare.owners)
    free(part_starts)
    free(next_in)
    if not sorted_all:
        spread_free(out)
    return sorted_all


cdef uint32_t divide_into_parts(
    const uint64_t* keys,
    const uint32_t* owners,
    uint32_t count,
    uint32_t part_bits,
    uint32_t* part_starts,      # zeros; one more than there are parts
    uint32_t* next_in,
    SpreadKeys* out,
) noexcept nogil:
    """Moves pairs to `out`, by their leading bits alone. Returns how many pairs the largest part has."""
    cdef uint32_t shift = 64 - part_bits
    cdef uint32_t largest = 0
    cdef uint32_t i, part, position
    for i in range(count):
        part_starts[(keys[i] >> shift) + 1] += 1
    for part in range(<uint32_t>1 << part_bits):
        largest = max(largest, part_starts[part + 1])
        next_in[part] = part_starts[part]
        part_starts[part + 1] += part_starts[part]
    for i in range(count):
        part = <uint32_t>(keys[i] >> shift)
        position = next_in[part]
        next_in[part] = position + 1
        out.keys[position] = keys[i]
        out.owners[position] = owners[i]
    return largest


cdef bint sort_part(
    const uint64_t* keys,
    const uint32_t* owners,
    uint32_t count,
    uint32_t first,             # position in `out`
    uint32_t first_bucket,
    uint32_t buckets,
    uint32_t* next_in,
    SpreadKeys* out,
) noexcept nogil:
    """Sorts the pairs of some buckets to their place in `out`, and writes these buckets' starts. False without memory."""
    cdef uint32_t shift = 64 - out.bits
    cdef uint32_t* starts = out.starts + first_bucket
    cdef uint32_t most = 0
    cdef uint32_t i, bucket, position
    memset(next_in, 0, buckets * sizeof(uint32_t))
    for i in range(count):
        next_in[(keys[i] >> shift) - first_bucket] += 1
    position = first
    for bucket in range(buckets):
        most = max(most, next_in[bucket])
        starts[bucket] = position
        position += next_in[bucket]
        next_in[bucket] = starts[bucket]
    for i in range(count):
        bucket = <uint32_t>(keys[i] >> shift) - first_bucket
        position = next_in[bucket]
        next_in[bucket] = position + 1
        out.keys[position] = keys[i]
        out.owners[position] = owners[i]
    if most <= INSERTION_SORT_LIMIT:    # all at once: no key moves beyond its bucket, so the end of one costs no branch
        insertion_sort(out.keys + first, out.owners + first, count)
        return True
    for bucket in range(buckets):
        if not sort_bucket(out.keys + starts[bucket], out.owners + starts[bucket], next_in[bucket] - starts[bucket]):
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


cdef bint sort_bucket(uint64_t* keys, uint32_t* owners, uint32_t count) noexcept nogil:
    cdef uint32_t i
    if count <= INSERTION_SORT_LIMIT:
        insertion_sort(keys, owners, count)
        return True
    for i in range(1, count):
        if keys[i] < keys[i - 1]:
            return merge_bucket(keys, owners, count)
    return True


cdef inline void insertion_sort(uint64_t* keys, uint32_t* owners, uint32_t count) noexcept nogil:
    cdef uint32_t i, j, owner
    cdef uint64_t key
    for i in range(1, count):
        key = keys[i]
        if lb_likely(keys[i - 1] <= key):
            continue
        owner = owners[i]
        j = i
        while j > 0 and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            owners[j] = owners[j - 1]
            j -= 1
        keys[j] = key
        owners[j] = owner


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
