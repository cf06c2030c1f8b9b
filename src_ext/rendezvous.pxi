# Rendezvous (highest random weight) hashing, weighted exactly: each endpoint draws a number u in (0, 1] from the key, the
# least -ln(u) / weight wins. Shares are then as the weights to the last digit, and a change of one endpoint or one weight
# moves only the keys it must. Source: Thaler and Ravishankar 1998; the weighted score: Schindelhauer and Schomaker, 2005.
#
# The scores of all endpoints are computed in one plain loop over arrays, which the compiler turns into SIMD for each kind
# of machine (simd.pxi). It uses nothing but IEEE operations in a fixed order, without contraction, and a logarithm of
# its own, so every machine gets the same bits: the same key reaches the same endpoint from all of them.

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #define LB_RENDEZVOUS_PARAMETERS \
        const uint64_t *endpoints, const double *inverse_weights, uint32_t count, uint64_t hash, int64_t *scores
    #define LB_RENDEZVOUS_ARGUMENTS endpoints, inverse_weights, count, hash, scores

    /* u in (0, 1] out of the key's and the endpoint's hash; the mix is MurmurHash3's 64-bit finaliser. */
    static inline uint64_t lb_rendezvous_mix(uint64_t hash, uint64_t endpoint) {
        uint64_t mixed = hash ^ endpoint;
        mixed = (mixed ^ (mixed >> 33)) * 0xFF51AFD7ED558CCDULL;
        mixed = (mixed ^ (mixed >> 33)) * 0xC4CEB9FE1A85EC53ULL;
        return ((mixed ^ (mixed >> 33)) >> 12) + 1;    /* 1 to 2^52 */
    }

    /* An integer of 0 to 2^52, by its bits alone: not every machine converts vectors of 64-bit integers. */
    static inline double lb_exact_double(uint64_t whole) {
        uint64_t bits = whole + 0x4330000000000000ULL;
        double value;
        memcpy(&value, &bits, 8);
        return value - 4503599627370496.0;
    }

    /* -ln(mixed / 2^52), by the area tangent series about 1; relative error below 1e-14 off 0. */
    static inline double lb_rendezvous_score(uint64_t mixed, double inverse_weight) {
        double value = lb_exact_double(mixed);
        uint64_t bits;
        memcpy(&bits, &value, 8);
        /* Exponent and mantissa about the square root of two: the mantissa is in [0.707, 1.414). */
        uint64_t shifted = bits - 0x3FE6A09E667F3BCDULL;
        uint64_t exponent = shifted >> 52;    /* 0 to 52 */
        bits = bits - (exponent << 52);
        double mantissa;
        memcpy(&mantissa, &bits, 8);
        double s = (mantissa - 1.0) / (mantissa + 1.0);
        double square = s * s;
        double series = 1.0 / 17;
        series = series * square + 1.0 / 15;
        series = series * square + 1.0 / 13;
        series = series * square + 1.0 / 11;
        series = series * square + 1.0 / 9;
        series = series * square + 1.0 / 7;
        series = series * square + 1.0 / 5;
        series = series * square + 1.0 / 3;
        series = series * square + 1.0;
        double logarithm = (lb_exact_double(exponent) - 52.0) * 0.69314718055994530942 + 2.0 * s * series;
        return (0.0 - logarithm) * inverse_weight;
    }

    /* Scores as the integers of their bits: they are not negative, so they order alike. Returns the least. */
    static inline LB_IN_PLACE int64_t lb_rendezvous_scores_loop(LB_RENDEZVOUS_PARAMETERS) {
        int64_t least = INT64_MAX;
        for (uint32_t i = 0; i < count; i++) {
            double score = lb_rendezvous_score(lb_rendezvous_mix(hash, endpoints[i]), inverse_weights[i]);
            int64_t bits;
            memcpy(&bits, &score, 8);
            scores[i] = bits;
            least = bits < least ? bits : least;
        }
        return least;
    }

    /* With equal weights the largest u wins; complemented, so that the least wins here too. */
    static inline LB_IN_PLACE int64_t lb_rendezvous_mixes_loop(LB_RENDEZVOUS_PARAMETERS) {
        int64_t least = INT64_MAX;
        (void)inverse_weights;
        for (uint32_t i = 0; i < count; i++) {
            int64_t bits = (int64_t)((1ULL << 52) - lb_rendezvous_mix(hash, endpoints[i]));
            scores[i] = bits;
            least = bits < least ? bits : least;
        }
        return least;
    }

    /* The loop compiled for each kind of machine, and the choice among them. */
    #ifdef LB_X86
    #define LB_RENDEZVOUS(name) \
        LB_AVX512 static int64_t name##_avx512(LB_RENDEZVOUS_PARAMETERS) { \
            return name##_loop(LB_RENDEZVOUS_ARGUMENTS); \
        } \
        LB_AVX2 static int64_t name##_avx2(LB_RENDEZVOUS_PARAMETERS) { \
            return name##_loop(LB_RENDEZVOUS_ARGUMENTS); \
        } \
        static int64_t name(LB_RENDEZVOUS_PARAMETERS) { \
            if (lb_simd == LB_WITH_AVX512) return name##_avx512(LB_RENDEZVOUS_ARGUMENTS); \
            if (lb_simd == LB_WITH_AVX2) return name##_avx2(LB_RENDEZVOUS_ARGUMENTS); \
            return name##_loop(LB_RENDEZVOUS_ARGUMENTS); \
        }
    #else
    #define LB_RENDEZVOUS(name) \
        static int64_t name(LB_RENDEZVOUS_PARAMETERS) { return name##_loop(LB_RENDEZVOUS_ARGUMENTS); }
    #endif
    LB_RENDEZVOUS(lb_rendezvous_scores)
    LB_RENDEZVOUS(lb_rendezvous_mixes)

    typedef int64_t (*lb_rendezvous_function)(LB_RENDEZVOUS_PARAMETERS);
    """
    ctypedef int64_t (*RendezvousFunction "lb_rendezvous_function")(
        const uint64_t*, const double*, uint32_t, uint64_t, int64_t*
    ) noexcept nogil
    int64_t rendezvous_scores "lb_rendezvous_scores"(
        const uint64_t*, const double*, uint32_t, uint64_t, int64_t*
    ) noexcept nogil
    int64_t rendezvous_mixes "lb_rendezvous_mixes"(
        const uint64_t*, const double*, uint32_t, uint64_t, int64_t*
    ) noexcept nogil

cdef enum: RENDEZVOUS_BLOCK = 256     # scores computed at once, on the stack

cdef struct RendezvousSelector:
    Selector base
    RendezvousFunction scores
    uint64_t* hashes            # of the members' keys
    double* inverse_weights


cdef Selector* rendezvous_new(Group* group) noexcept nogil:
    cdef uint64_t* hashes = <uint64_t*>malloc(group.count * sizeof(uint64_t))
    cdef double* inverse_weights = <double*>malloc(group.count * sizeof(double))
    cdef RendezvousSelector* selector = NULL
    cdef bint equal = True
    cdef uint32_t i
    if hashes != NULL and inverse_weights != NULL:
        for i in range(group.count):
            hashes[i] = xxh64(group.hash_keys[i], group.hash_key_sizes[i], 0)
            # Where only weights count they are taken as given: scores then do not depend on the other endpoints at all.
            inverse_weights[i] = 1.0 / (<double>group.weights[i] if group.equal_localities else group.shares[i])
            equal = equal and inverse_weights[i] == inverse_weights[0]
        selector = <RendezvousSelector*>selector_new(sizeof(RendezvousSelector), group)
    if selector == NULL:
        free(hashes)
        free(inverse_weights)
        return NULL
    selector.scores = rendezvous_mixes if equal else rendezvous_scores
    selector.hashes = hashes
    selector.inverse_weights = inverse_weights
    selector.base.choose = rendezvous_choose
    selector.base.choose_many = choose_one_by_one
    selector.base.reserve = reserve_nothing
    selector.base.attempt = rendezvous_attempt
    selector.base.free = rendezvous_free
    return &selector.base


cdef void rendezvous_free(Selector* base) noexcept nogil:
    free((<RendezvousSelector*>base).hashes)
    free((<RendezvousSelector*>base).inverse_weights)
    selector_free(base)


cdef int32_t rendezvous_choose(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef const RendezvousSelector* selector = <const RendezvousSelector*>base
    cdef int64_t scores[RENDEZVOUS_BLOCK]
    cdef int64_t least
    cdef int64_t best_score = 0x7FFFFFFFFFFFFFFFLL
    cdef uint32_t best = 0
    cdef uint32_t start = 0
    cdef uint32_t i, size
    while start < base.count:
        size = min(base.count - start, <uint32_t>RENDEZVOUS_BLOCK)
        least = selector.scores(selector.hashes + start, selector.inverse_weights + start, size, hash, scores)
        if least < best_score:
            best_score = least
            i = 0
            while scores[i] != least:
                i += 1
            best = start + i
        start += size
    return <int32_t>base.members[best]


cdef int32_t rendezvous_attempt(Selector* base, uint64_t hash, uint32_t attempt) noexcept nogil:
    """The member with `attempt` others before it; the order wraps round."""
    cdef const RendezvousSelector* selector = <const RendezvousSelector*>base
    cdef int64_t* scores = <int64_t*>malloc(base.count * sizeof(int64_t))
    cdef uint32_t place = attempt % base.count
    cdef uint32_t best = 0
    cdef uint32_t turn, i
    if scores == NULL:
        return NO_MEMBER
    selector.scores(selector.hashes, selector.inverse_weights, base.count, hash, scores)
    for turn in range(place + 1):
        best = 0
        for i in range(1, base.count):
            if scores[i] < scores[best]:
                best = i
        if turn < place:
            scores[best] = 0x7FFFFFFFFFFFFFFFLL
    free(scores)
    return <int32_t>base.members[best]
