# Jump consistent hashing, for numbered shards: endpoint i, in the order given, is shard i. No table, and shares are even;
# but shards come and go only at the end. Source: Lamping and Veach, arXiv:1406.2294.
#
# Shards keep their numbers whatever their health: where a key's shard is out, the key is hashed again, so only the keys of
# that shard move, and they spread over all others.
#
# Sixteen keys at once take the steps of the slowest of them together. A shard's number and all that it is computed from are
# whole numbers below 2^53, so doubles hold them exactly, and every machine finds the same shards.

cdef extern from *:
    """
    #define LB_JUMP_LANES 16

    static inline uint32_t lb_jump_shard(uint64_t hash, uint32_t count) {
        int64_t shard = -1, following = 0;
        while (following < count) {
            shard = following;
            hash = hash * 2862933555777941757ULL + 1;
            following = (int64_t)((double)(shard + 1) * ((double)(1LL << 31) / (double)((hash >> 33) + 1)));
        }
        return (uint32_t)shard;
    }

    #ifdef LB_X86
    /* An integer below 2^52 becomes the double 2^52 + it by its bits alone. */
    LB_AVX512 static void lb_jump_avx512(const uint64_t *hashes, int32_t *shards, uint32_t count) {
        enum { GROUPS = LB_JUMP_LANES / 8 };
        const __m512d limit = _mm512_set1_pd(count), one = _mm512_set1_pd(1.0), range = _mm512_set1_pd(2147483648.0);
        const __m512d base = _mm512_set1_pd(4503599627370496.0);
        const __m512i factor = _mm512_set1_epi64(2862933555777941757LL), unit = _mm512_set1_epi64(1);
        __m512i state[GROUPS];
        __m512d following[GROUPS], shard[GROUPS];
        __mmask8 under_way;
        for (int g = 0; g < GROUPS; g++) {
            state[g] = _mm512_loadu_si512(hashes + 8 * g);
            shard[g] = following[g] = _mm512_setzero_pd();
        }
        do {
            under_way = 0;
            for (int g = 0; g < GROUPS; g++) {
                shard[g] = _mm512_mask_mov_pd(shard[g], _mm512_cmp_pd_mask(following[g], limit, _CMP_LT_OQ), following[g]);
                state[g] = _mm512_add_epi64(_mm512_mullo_epi64(state[g], factor), unit);
                __m512i bits = _mm512_add_epi64(_mm512_srli_epi64(state[g], 33), unit);
                bits = _mm512_or_si512(bits, _mm512_castpd_si512(base));
                __m512d step = _mm512_div_pd(range, _mm512_sub_pd(_mm512_castsi512_pd(bits), base));
                step = _mm512_min_pd(_mm512_mul_pd(_mm512_add_pd(following[g], one), step), limit);
                following[g] = _mm512_roundscale_pd(step, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
                under_way |= _mm512_cmp_pd_mask(following[g], limit, _CMP_LT_OQ);
            }
        } while (under_way);
        for (int g = 0; g < GROUPS; g++)
            _mm256_storeu_si256((__m256i *)(shards + 8 * g), _mm512_cvttpd_epi32(shard[g]));
    }

    LB_AVX2 static void lb_jump_avx2(const uint64_t *hashes, int32_t *shards, uint32_t count) {
        enum { GROUPS = LB_JUMP_LANES / 4 };
        const __m256d limit = _mm256_set1_pd(count), one = _mm256_set1_pd(1.0), range = _mm256_set1_pd(2147483648.0);
        const __m256d base = _mm256_set1_pd(4503599627370496.0);
        const __m256i low = _mm256_set1_epi64x(2862933555777941757ULL & 0xFFFFFFFFULL);
        const __m256i high = _mm256_set1_epi64x(2862933555777941757ULL >> 32), unit = _mm256_set1_epi64x(1);
        __m256i state[GROUPS];
        __m256d following[GROUPS], shard[GROUPS];
        int under_way;
        for (int g = 0; g < GROUPS; g++) {
            state[g] = _mm256_loadu_si256((const __m256i *)(hashes + 4 * g));
            shard[g] = following[g] = _mm256_setzero_pd();
        }
        do {
            under_way = 0;
            for (int g = 0; g < GROUPS; g++) {
                shard[g] = _mm256_blendv_pd(shard[g], following[g], _mm256_cmp_pd(following[g], limit, _CMP_LT_OQ));
                /* A product of 64 bits out of halves. */
                __m256i cross = _mm256_mul_epu32(_mm256_srli_epi64(state[g], 32), low);
                cross = _mm256_slli_epi64(_mm256_add_epi64(cross, _mm256_mul_epu32(state[g], high)), 32);
                state[g] = _mm256_add_epi64(_mm256_add_epi64(_mm256_mul_epu32(state[g], low), cross), unit);
                __m256i bits = _mm256_add_epi64(_mm256_srli_epi64(state[g], 33), unit);
                bits = _mm256_or_si256(bits, _mm256_castpd_si256(base));
                __m256d step = _mm256_div_pd(range, _mm256_sub_pd(_mm256_castsi256_pd(bits), base));
                step = _mm256_min_pd(_mm256_mul_pd(_mm256_add_pd(following[g], one), step), limit);
                following[g] = _mm256_round_pd(step, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
                under_way |= _mm256_movemask_pd(_mm256_cmp_pd(following[g], limit, _CMP_LT_OQ));
            }
        } while (under_way);
        for (int g = 0; g < GROUPS; g++)
            _mm_storeu_si128((__m128i *)(shards + 4 * g), _mm256_cvttpd_epi32(shard[g]));
    }
    #endif

    /* The shard of each key; there are 1 to 2^31 - 1 of them. */
    static void lb_jump_shards(const uint64_t *hashes, int32_t *shards, size_t keys, uint32_t count) {
        size_t i = 0;
    #ifdef LB_X86
        if (lb_simd == LB_WITH_AVX512)
            for (; i + LB_JUMP_LANES <= keys; i += LB_JUMP_LANES)
                lb_jump_avx512(hashes + i, shards + i, count);
        else if (lb_simd == LB_WITH_AVX2)
            for (; i + LB_JUMP_LANES <= keys; i += LB_JUMP_LANES)
                lb_jump_avx2(hashes + i, shards + i, count);
    #endif
        for (; i < keys; i++)
            shards[i] = (int32_t)lb_jump_shard(hashes[i], count);
    }
    """
    uint32_t jump_shard "lb_jump_shard"(uint64_t hash, uint32_t count) noexcept nogil
    void jump_shards "lb_jump_shards"(const uint64_t* hashes, int32_t* shards, size_t keys, uint32_t count) noexcept nogil

cdef enum: JUMP_ATTEMPTS = 64     # a shard, before the first usable one is taken


cdef Selector* jump_new(Group* group) noexcept nogil:
    cdef Selector* selector = <Selector*>selector_new(sizeof(Selector), group)
    if selector == NULL:
        return NULL
    selector.choose = jump_choose
    selector.choose_many = jump_choose_many
    selector.reserve = reserve_nothing
    selector.attempt = jump_attempt
    return selector


cdef int32_t jump_attempt(Selector* selector, uint64_t hash, uint32_t attempt) noexcept nogil:
    """The shard of the key, or of the key hashed again; NO_MEMBER where it is out."""
    if attempt:
        hash = wyrand_mix(hash + attempt * <uint64_t>0xA0761D6478BD642FULL)
    cdef uint32_t shard = jump_shard(hash, selector.count)
    return <int32_t>selector.members[shard] if selector_may_use(selector, shard) else NO_MEMBER


cdef int32_t jump_choose(Selector* selector, Draw* draw, uint64_t hash) noexcept nogil:
    cdef int32_t member = NO_MEMBER
    cdef uint32_t attempt
    for attempt in range(selector.count * JUMP_ATTEMPTS):
        member = jump_attempt(selector, hash, attempt)
        if member != NO_MEMBER:
            return member
    for attempt in range(selector.count):
        if selector_may_use(selector, attempt):
            return <int32_t>selector.members[attempt]
    return NO_MEMBER


cdef void jump_choose_many(
    Selector* selector, Draw* draw, const uint64_t* hashes, int32_t* out, Py_ssize_t count
) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint32_t shard
    jump_shards(hashes, out, <size_t>count, selector.count)
    for i in range(count):
        shard = <uint32_t>out[i]
        if lb_likely(selector_may_use(selector, shard)):
            out[i] = <int32_t>selector.members[shard]
        else:
            out[i] = jump_choose(selector, draw, hashes[i])
