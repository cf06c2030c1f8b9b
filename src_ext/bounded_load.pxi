# Bounded loads around a hash selector: an endpoint that holds more than `balance_factor` percent of its share of all
# requests in flight passes the key on, along a random order seeded by the key, to the first endpoint that has room.
# The rule, the order and the generator are Envoy's (thread_aware_lb_impl.cc, BoundedLoadHashingLoadBalancer), by which an
# endpoint may go one request over its room. Rendezvous, which Envoy has no bounds for, keeps the bound strictly, and
# passes a key on along the key's own order.
# Papers: Mirrokni, Thorup, Zadimoghaddam, arXiv:1608.01350; Chen et al. (random jumps), arXiv:1908.08762.

cdef struct BoundedLoadSelector:
    Selector base
    Selector* inner         # owns the group's arrays, which base only borrows
    double* shares          # of the members, in the group's order
    uint32_t* positions     # in the group, by member
    uint32_t balance_factor # percent
    int32_t extra           # 1: the request that is being placed counts, so the bound is strict


cdef Selector* bounded_load_new(
    Selector* inner, double* shares, uint32_t balance_factor, bint strict
) noexcept nogil:
    """Takes `inner` and `shares` over; frees both without memory."""
    cdef uint32_t largest = 0
    cdef uint32_t i
    cdef BoundedLoadSelector* selector = <BoundedLoadSelector*>calloc(1, sizeof(BoundedLoadSelector))
    for i in range(inner.count):
        largest = max(largest, inner.members[i])
    cdef uint32_t* positions = <uint32_t*>malloc((<size_t>largest + 1) * sizeof(uint32_t))
    if selector == NULL or positions == NULL:
        free(selector)
        free(positions)
        free(shares)
        inner.free(inner)
        return NULL
    for i in range(inner.count):
        positions[inner.members[i]] = i
    selector.base = inner[0]
    selector.base.choose = bounded_load_choose
    selector.base.choose_many = choose_one_by_one
    selector.base.reserve = NULL
    selector.base.attempt = bounded_load_attempt
    selector.base.free = bounded_load_free
    selector.inner = inner
    selector.shares = shares
    selector.positions = positions
    selector.balance_factor = balance_factor
    selector.extra = 1 if strict else 0
    return &selector.base


cdef inline Selector* bounded_load_inner(Selector* selector) noexcept nogil:
    """What a selector without bounds would be."""
    if selector != NULL and selector.choose == bounded_load_choose:
        return (<BoundedLoadSelector*>selector).inner
    return selector


cdef void bounded_load_free(Selector* base) noexcept nogil:
    cdef BoundedLoadSelector* selector = <BoundedLoadSelector*>base
    selector.inner.free(selector.inner)
    free(selector.shares)
    free(selector.positions)
    free(selector)


cdef inline double overload(const BoundedLoadSelector* selector, uint32_t position) noexcept nogil:
    """Requests in flight over the endpoint's room; above 1 it is overloaded."""
    cdef const Slot* slot = selector.base.slots[position]
    cdef uint64_t room = ((<uint64_t>slot.totals.active + 1) * selector.balance_factor + 99) // 100
    return <double>(slot.active + selector.extra) / max(ceil(<double>room * selector.shares[position]), 1.0)


cdef int32_t bounded_load_choose(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef BoundedLoadSelector* selector = <BoundedLoadSelector*>base
    return bounded_load_place(selector, hash, selector.inner.choose(selector.inner, draw, hash))


cdef int32_t bounded_load_attempt(Selector* base, uint64_t hash, uint32_t attempt) noexcept nogil:
    cdef BoundedLoadSelector* selector = <BoundedLoadSelector*>base
    return bounded_load_place(selector, hash, selector.inner.attempt(selector.inner, hash, attempt))


cdef inline int32_t bounded_load_place(BoundedLoadSelector* selector, uint64_t hash, int32_t member) noexcept nogil:
    if overload(selector, selector.positions[member]) <= 1.0:
        return member
    if selector.extra:
        return bounded_load_follow(selector, hash, selector.positions[member])
    return bounded_load_probe(selector, hash, selector.positions[member])


cdef int32_t bounded_load_follow(BoundedLoadSelector* selector, uint64_t hash, uint32_t first) noexcept nogil:
    """The first along the key's own order that has room, else the least overloaded."""
    cdef uint32_t best = first
    cdef double least = overload(selector, first)
    cdef double load
    cdef int32_t member
    cdef uint32_t attempt
    for attempt in range(selector.base.count):
        member = selector.inner.attempt(selector.inner, hash, attempt)
        if member < 0:
            break
        load = overload(selector, selector.positions[member])
        if load < least:
            best = selector.positions[member]
            least = load
        if load <= 1.0:
            break
    return <int32_t>selector.base.members[best]


cdef int32_t bounded_load_probe(BoundedLoadSelector* selector, uint64_t hash, uint32_t first) noexcept nogil:
    cdef uint32_t count = selector.base.count
    cdef uint32_t* order = <uint32_t*>malloc(count * sizeof(uint32_t))
    cdef MersenneTwister generator
    cdef uint32_t best = first
    cdef double least = overload(selector, first)
    cdef double load
    cdef uint32_t i, j, position
    if order == NULL:
        return <int32_t>selector.base.members[first]
    mersenne_seed(&generator, <uint32_t>hash)
    for i in range(count):
        order[i] = i
    for i in range(count):
        j = i + mersenne_below(&generator, count - i)
        position = order[j]
        order[j] = order[i]
        order[i] = position
        if position == first:
            continue
        load = overload(selector, position)
        if load < least:
            best = position
            least = load
        if load <= 1.0:
            best = position
            break
    free(order)
    return <int32_t>selector.base.members[best]


# MT19937, the generator that C++ calls std::mt19937 (Matsumoto and Nishimura, 1998).
cdef struct MersenneTwister:
    uint32_t state[624]
    uint32_t at


cdef void mersenne_seed(MersenneTwister* generator, uint32_t seed) noexcept nogil:
    cdef uint32_t i
    generator.state[0] = seed
    for i in range(1, 624):
        seed = <uint32_t>1812433253 * (seed ^ (seed >> 30)) + i
        generator.state[i] = seed
    generator.at = 624


cdef uint32_t mersenne_next(MersenneTwister* generator) noexcept nogil:
    cdef uint32_t i, word
    if generator.at == 624:
        for i in range(624):
            word = (generator.state[i] & 0x80000000U) | (generator.state[(i + 1) % 624] & 0x7FFFFFFFU)
            generator.state[i] = generator.state[(i + 397) % 624] ^ (word >> 1) ^ (0x9908B0DFU if word & 1 else 0U)
        generator.at = 0
    word = generator.state[generator.at]
    generator.at += 1
    word ^= word >> 11
    word ^= (word << 7) & 0x9D2C5680U
    word ^= (word << 15) & 0xEFC60000U
    return word ^ (word >> 18)


cdef uint32_t mersenne_below(MersenneTwister* generator, uint32_t bound) noexcept nogil:
    """Uniform in [0, bound), drawn the way Envoy draws it."""
    cdef uint64_t width = <uint64_t>0x100000000ULL // bound
    cdef uint64_t drawn = mersenne_next(generator) // width
    while drawn >= bound:
        drawn = mersenne_next(generator) // width
    return <uint32_t>drawn
