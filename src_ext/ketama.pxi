# The layout of libketama (Last.fm, 2007), which uhashring and the memcached clients share: 32-bit points, four from each MD5
# digest of `key-0`, `key-1`, …; keys are placed by the first 32 bits of their own digest. For people who migrate a cache and
# want its keys to stay where they are. Points and keys are kept in the upper half of the ring's 64 bits, so that lookup is
# the ring's own (ring.pxi). MD5: RFC 1321; here it spreads keys, and protects nothing.

from libc.math cimport fabs, floor, sin

cdef enum: KETAMA_DIGESTS = 40      # an endpoint of average weight, four points each

cdef uint32_t[64] MD5_SINES
cdef uint8_t[16] MD5_SHIFTS = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21]

cdef uint32_t sine
for sine in range(64):
    MD5_SINES[sine] = <uint32_t>floor(fabs(sin(<double>(sine + 1))) * 4294967296.0)


cdef void md5_block(uint32_t* state, const uint8_t* block) noexcept nogil:
    cdef uint32_t a = state[0]
    cdef uint32_t b = state[1]
    cdef uint32_t c = state[2]
    cdef uint32_t d = state[3]
    cdef uint32_t mixed, word, bits, turn
    for turn in range(64):
        if turn < 16:
            mixed = (b & c) | (~b & d)
            word = turn
        elif turn < 32:
            mixed = (d & b) | (~d & c)
            word = (5 * turn + 1) % 16
        elif turn < 48:
            mixed = b ^ c ^ d
            word = (3 * turn + 5) % 16
        else:
            mixed = c ^ (b | ~d)
            word = (7 * turn) % 16
        mixed += a + MD5_SINES[turn] + read32(block + 4 * word)
        bits = MD5_SHIFTS[(turn // 16) * 4 + turn % 4]
        a = d
        d = c
        c = b
        b += (mixed << bits) | (mixed >> (32 - bits))
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d


cdef void md5(const void* start, size_t length, uint32_t* digest) noexcept nogil:
    """The digest as four little-endian words."""
    cdef const uint8_t* at = <const uint8_t*>start
    cdef size_t rest = length
    cdef uint8_t[128] tail
    cdef size_t tail_size
    cdef uint64_t length_bits = <uint64_t>length * 8
    digest[0] = 0x67452301U
    digest[1] = 0xEFCDAB89U
    digest[2] = 0x98BADCFEU
    digest[3] = 0x10325476U
    while rest >= 64:
        md5_block(digest, at)
        at += 64
        rest -= 64
    memset(tail, 0, sizeof(tail))
    memcpy(tail, at, rest)
    tail[rest] = 0x80
    tail_size = 64 if rest < 56 else 128
    memcpy(tail + tail_size - 8, &length_bits, 8)
    md5_block(digest, tail)
    if tail_size == 128:
        md5_block(digest, tail + 64)


cdef inline uint64_t ketama_hash(const void* start, size_t length) noexcept nogil:
    cdef uint32_t[4] digest
    md5(start, length, digest)
    return <uint64_t>digest[0] << 32


cdef Selector* ketama_new(Group* group) noexcept nogil:
    cdef uint32_t* counts = ketama_counts(group)
    cdef SpreadKeys points
    if counts == NULL or not ketama_points(group, counts, &points):
        free(counts)
        return NULL
    return ring_of(group, &points, counts)


cdef uint32_t* ketama_counts(const Group* group) noexcept nogil:
    """Digests of each endpoint: 40 times its weight over the mean, rounded down, as in libketama; at least one."""
    cdef uint32_t* counts = <uint32_t*>calloc(group.count, sizeof(uint32_t))
    cdef uint64_t total = 0
    cdef uint32_t i
    for i in range(group.count):
        total += group.weights[i]
    if counts != NULL:
        for i in range(group.count):
            counts[i] = max(
                <uint32_t>1, <uint32_t>(<uint64_t>KETAMA_DIGESTS * group.count * group.weights[i] // total)
            )
    return counts


cdef bint ketama_points(const Group* group, const uint32_t* counts, SpreadKeys* points) noexcept nogil:
    cdef uint64_t size = 0
    cdef uint32_t filled = 0
    cdef uint32_t i, turn, word
    cdef Py_ssize_t longest = 0
    cdef Py_ssize_t length
    cdef uint32_t[4] digest
    cdef bint built = False
    for i in range(group.count):
        size += 4 * <uint64_t>counts[i]
        longest = max(longest, group.hash_key_sizes[i])
    cdef char* text = <char*>malloc(longest + 1 + MOST_DIGITS)
    cdef uint64_t* hashes = <uint64_t*>table_new(size * sizeof(uint64_t))
    cdef uint32_t* owners = <uint32_t*>table_new(size * sizeof(uint32_t))
    if text != NULL and hashes != NULL and owners != NULL:
        for i in range(group.count):
            memcpy(text, group.hash_keys[i], group.hash_key_sizes[i])
            text[group.hash_key_sizes[i]] = c'-'
            length = group.hash_key_sizes[i] + 1 + decimal_write(text + group.hash_key_sizes[i] + 1, 0)
            for turn in range(counts[i]):
                md5(text, length, digest)
                for word in range(4):
                    hashes[filled] = <uint64_t>digest[word] << 32
                    owners[filled] = group.members[i]
                    filled += 1
                length = decimal_increment(text, group.hash_key_sizes[i] + 1, length)
        built = spread_sort(hashes, owners, filled, ring_index_bits(size), points)
    free(text)
    free(hashes)
    free(owners)
    return built
