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


cdef Selector* ring_new(
    Group* group, uint64_t minimum_size, uint64_t maximum_size, bint murmur
) noexcept nogil:
    cdef SpreadKeys points
    cdef RingSelector* selector
    cdef uint32_t i
    if not ring_points(group, minimum_size, maximum_size, murmur, &points):
        return NULL
    selector = <RingSelector*>selector_new(sizeof(RingSelector), group)
    if selector == NULL:
        spread_free(&points)
        return NULL
    for i in range(points.count):
        points.owners[i] = selector.base.members[points.owners[i]]
    points.keys[points.count] = 0xFFFFFFFFFFFFFFFFULL
    points.owners[points.count] = points.owners[0]
    selector.points = points
    selector.shift = 64 - points.bits
    selector.base.choose = ring_choose
    selector.base.choose_many = ring_choose_many
    selector.base.reserve = reserve_nothing
    selector.base.attempt = ring_attempt
    selector.base.free = ring_free
    return &selector.base


cdef void ring_free(Selector* base) noexcept nogil:
    spread_free(&(<RingSelector*>base).points)
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


cdef bint ring_points(
    const Group* group, uint64_t minimum_size, uint64_t maximum_size, bint murmur, SpreadKeys* points
) noexcept nogil:
    """The sorted points; owners are positions in the group. False without memory."""
    cdef double smallest = 1.0
    cdef double scale
    cdef uint32_t i, size
    cdef uint64_t* hashes
    cdef uint32_t* owners
    cdef bint built = False
    for i in range(group.count):
        smallest = min(smallest, group.shares[i])
    scale = min(ceil(smallest * <double>minimum_size) / smallest, <double>maximum_size)
    # One more than Envoy reserves: the running sums may round up by a point.
    cdef size_t room = <size_t>min(ceil(scale) + 1, <double>maximum_size)
    hashes = <uint64_t*>malloc(room * sizeof(uint64_t))
    owners = <uint32_t*>malloc(room * sizeof(uint32_t))
    if hashes != NULL and owners != NULL:
        size = ring_hash_points(group, scale, <uint32_t>room, murmur, hashes, owners)
        if size:
            built = spread_sort(
                hashes, owners, size, index_bits(size, 2 if size <= DENSE_INDEX_LIMIT else 0), points
            )
    free(hashes)
    free(owners)
    return built


cdef uint32_t ring_hash_points(
    const Group* group, double scale, uint32_t room, bint murmur, uint64_t* hashes, uint32_t* owners
) noexcept nogil:
    """Hashes `key_0`, `key_1`, … of each endpoint; how many of each follows from running sums, as in Envoy."""
    cdef double current = 0.0
    cdef double target = 0.0
    cdef uint32_t size = 0
    cdef uint32_t i
    cdef Py_ssize_t length
    cdef Py_ssize_t longest = 0
    cdef char* text
    for i in range(group.count):
        longest = max(longest, group.hash_key_sizes[i])
    text = <char*>malloc(longest + 1 + MOST_DIGITS)
    if text == NULL:
        return 0
    for i in range(group.count):
        length = group.hash_key_sizes[i]
        memcpy(text, group.hash_keys[i], length)
        text[length] = c'_'
        text[length + 1] = c'0'
        length += 2
        target += scale * group.shares[i]
        while current < target and size < room:
            hashes[size] = murmur64(text, length) if murmur else xxh64(text, length, 0)
            owners[size] = i
            size += 1
            current += 1.0
            length = decimal_increment(text, group.hash_key_sizes[i] + 1, length)
    free(text)
    return size


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
