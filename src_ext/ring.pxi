# Ring hash (ketama): each endpoint owns points on a ring of 2^64, a key belongs to the first point at or after its hash.
# The points and their number are Envoy's to the last bit (ring_hash_lb.cc; gRFC A42 takes them over), so the same key
# reaches the same endpoint through either. Where lbcore departs: the ring never outgrows maximum_ring_size (Envoy's may,
# by rounding), and of points with equal hashes the endpoint that stands first in the cluster owns the key.
#
# Lookup: the leading bits of the hash index into the sorted points, and the key's own point is a step or two further on,
# because hashes are spread evenly. An index of four buckets a point halves the steps, while it all still fits the cache.

from libc.math cimport ceil

cdef enum: DENSE_INDEX_LIMIT = 32768     # points; 28 bytes each below it, 16 above

cdef struct RingSelector:
    Selector base
    SpreadKeys points       # owners are members; the entry past the end repeats the first, for hashes above all points
    uint32_t shift
    uint32_t* counts        # points by position in the group


cdef Selector* ring_new(
    Group* group, uint64_t minimum_size, uint64_t maximum_size, bint murmur, const Selector* before
) noexcept nogil:
    """`before` is the ring that this one replaces, or NULL: what the two have in common is then copied, not hashed anew."""
    cdef uint32_t* counts = ring_counts(group, minimum_size, maximum_size)
    cdef SpreadKeys points
    cdef bint built
    if counts == NULL:
        return NULL
    memset(&points, 0, sizeof(points))
    built = before != NULL and group.previous != NULL and ring_change(
        <const RingSelector*>before, group, counts, murmur, &points
    )
    if not built and not ring_points(group, counts, murmur, &points):
        free(counts)
        return NULL
    return ring_of(group, &points, counts)


cdef Selector* ring_of(Group* group, SpreadKeys* points, uint32_t* counts) noexcept nogil:
    """Takes over the group's arrays, the points and the counts; frees the latter without memory."""
    cdef RingSelector* selector = <RingSelector*>selector_new(sizeof(RingSelector), group)
    if selector == NULL:
        spread_free(points)
        free(counts)
        return NULL
    points.keys[points.count] = 0xFFFFFFFFFFFFFFFFULL
    points.owners[points.count] = points.owners[0]
    selector.points = points[0]
    selector.counts = counts
    selector.shift = 64 - points.bits
    selector.base.choose = ring_choose
    selector.base.choose_many = ring_choose_many
    selector.base.reserve = reserve_nothing
    selector.base.attempt = ring_attempt
    selector.base.free = ring_free
    return &selector.base


cdef void ring_free(Selector* base) noexcept nogil:
    spread_free(&(<RingSelector*>base).points)
    free((<RingSelector*>base).counts)
    selector_free(base)


cdef void reserve_nothing(Selector* base, Draw* shared, Draw* batch, Py_ssize_t count) noexcept nogil:
    pass


cdef inline uint32_t ring_position(const RingSelector* selector, uint64_t hash) noexcept nogil:
    cdef uint32_t position = selector.points.starts[hash >> selector.shift]
    while selector.points.keys[position] < hash:
        position += 1
    return position


cdef int32_t ring_choose(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    return <int32_t>(<RingSelector*>base).points.owners[ring_position(<RingSelector*>base, hash)]


cdef void ring_choose_many(
    Selector* base, Draw* draw, const uint64_t* hashes, int32_t* out, Py_ssize_t count
) noexcept nogil:
    cdef const RingSelector* selector = <const RingSelector*>base
    cdef Py_ssize_t i
    for i in range(count):
        out[i] = <int32_t>selector.points.owners[ring_position(selector, hashes[i])]


cdef int32_t ring_attempt(Selector* base, uint64_t hash, uint32_t attempt) noexcept nogil:
    cdef RingSelector* selector = <RingSelector*>base
    cdef uint64_t position = ring_position(selector, hash)
    return <int32_t>selector.points.owners[(position + attempt) % selector.points.count]


cdef uint32_t* ring_counts(const Group* group, uint64_t minimum_size, uint64_t maximum_size) noexcept nogil:
    """How many points each endpoint has, from Envoy's running sums of doubles; NULL without memory."""
    cdef uint32_t* counts = <uint32_t*>calloc(group.count, sizeof(uint32_t))
    cdef double smallest = 1.0
    cdef double current = 0.0
    cdef double target = 0.0
    cdef double scale, following
    cdef uint32_t i
    if counts == NULL:
        return NULL
    for i in range(group.count):
        smallest = min(smallest, group.shares[i])
    scale = min(ceil(smallest * <double>minimum_size) / smallest, <double>maximum_size)
    for i in range(group.count):
        # Envoy adds points one by one while current < target; both sums are exact, so this is where it ends.
        target += scale * group.shares[i]
        following = min(ceil(target), <double>maximum_size)
        if following > current:
            counts[i] = <uint32_t>(following - current)
            current = following
    return counts


cdef bint ring_points(const Group* group, const uint32_t* counts, bint murmur, SpreadKeys* points) noexcept nogil:
    """All points, hashed and sorted; owners are members. False without memory."""
    cdef RingHasher hasher
    cdef uint64_t* hashes
    cdef uint32_t* owners
    cdef uint64_t size = 0
    cdef uint32_t i
    cdef bint built = False
    for i in range(group.count):
        size += counts[i]
    hashes = <uint64_t*>table_new(size * sizeof(uint64_t))
    owners = <uint32_t*>table_new(size * sizeof(uint32_t))
    if hashes != NULL and owners != NULL and hasher_new(&hasher, group, murmur, hashes, owners):
        for i in range(group.count):
            hasher_add(&hasher, group.hash_keys[i], group.hash_key_sizes[i], group.members[i], 0, counts[i])
        free(hasher.text)
        built = spread_sort(hashes, owners, <uint32_t>size, ring_index_bits(size), points)
    free(hashes)
    free(owners)
    return built


cdef inline uint32_t ring_index_bits(uint64_t size) noexcept nogil:
    return index_bits(size, 2 if size <= DENSE_INDEX_LIMIT else 0)


# Writes the points `key_0`, `key_1`, … of endpoints one after the other.
cdef struct RingHasher:
    bint murmur
    char* text              # room for the longest key and a number
    uint64_t* hashes
    uint32_t* owners        # members
    uint32_t size


cdef bint hasher_new(
    RingHasher* hasher, const Group* group, bint murmur, uint64_t* hashes, uint32_t* owners
) noexcept nogil:
    cdef Py_ssize_t longest = 0
    cdef uint32_t i
    for i in range(group.count):
        longest = max(longest, group.hash_key_sizes[i])
    for i in range(group.gone_count):
        longest = max(longest, group.gone_key_sizes[i])
    hasher.murmur = murmur
    hasher.text = <char*>malloc(longest + 1 + MOST_DIGITS)
    hasher.hashes = hashes
    hasher.owners = owners
    hasher.size = 0
    return hasher.text != NULL


cdef void hasher_add(
    RingHasher* hasher, const char* key, Py_ssize_t key_size, uint32_t member, uint32_t first, uint32_t end
) noexcept nogil:
    """Points number `first` up to `end` of an endpoint: ten at a time, whose texts differ in the last digit."""
    cdef Py_ssize_t start = key_size + 1
    cdef Py_ssize_t length = start + decimal_write(hasher.text + start, first)
    cdef uint32_t digit = first % 10
    cdef uint32_t i, count
    memcpy(hasher.text, key, key_size)
    hasher.text[start - 1] = c'_'
    while first < end:
        count = min(10 - digit, end - first)
        if hasher.murmur:
            for i in range(count):
                hasher.text[length - 1] = <char>(c'0' + digit + i)
                hasher.hashes[hasher.size + i] = murmur64(hasher.text, length)
        else:
            xxh64_last_bytes(hasher.text, length, <char>(c'0' + digit), count, hasher.hashes + hasher.size)
        for i in range(count):
            hasher.owners[hasher.size + i] = member
        hasher.size += count
        first += count
        digit = 0
        hasher.text[length - 1] = c'9'
        length = decimal_increment(hasher.text, start, length)


cdef enum: MOST_DIGITS = 12


cdef inline Py_ssize_t decimal_increment(char* text, Py_ssize_t start, Py_ssize_t end) noexcept nogil:
    """Adds one to the decimal number text[start:end]; returns its new end."""
    cdef Py_ssize_t at = end - 1
    while at >= start and text[at] == c'9':
        text[at] = c'0'
        at -= 1
    if at >= start:
        text[at] += 1
        return end
    text[start] = c'1'
    text[end] = c'0'
    return end + 1


cdef inline Py_ssize_t decimal_write(char* text, uint32_t number) noexcept nogil:
    """Returns how many digits it has written."""
    cdef Py_ssize_t digits = 1
    cdef Py_ssize_t i
    cdef uint32_t rest = number // 10
    while rest:
        digits += 1
        rest //= 10
    for i in range(digits):
        text[digits - 1 - i] = <char>(c'0' + number % 10)
        number //= 10
    return digits
