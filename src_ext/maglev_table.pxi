# Fills a Maglev table: endpoints take turns, each takes the next slot of its permutation (slot + skip, modulo the size) that
# is free. Endpoints with equal hash keys, which Envoy orders by address in memory, go in the cluster's order here.
#
# Most of the time goes into slots that are taken already: ln(size) of them are looked at for each that is filled. So which
# are taken stands in a bitmap, small enough for the cache, and once a quarter is, the next eight or sixteen of a permutation
# are looked at together: by vector instructions where there are any, by arithmetic without branches to mispredict where not.

from libc.stdlib cimport qsort
from libc.string cimport memcmp

cdef extern from *:
    """
    typedef struct {
        double share, target;
        uint32_t slot;          /* where the permutation stands */
        uint32_t skip;
        uint32_t member;
    } lb_maglev_turn;

    #define LB_MAGLEV_PARAMETERS \
        lb_maglev_turn *turns, uint32_t count, double largest, uint32_t size, uint32_t *taken, uint16_t *narrow, uint32_t *wide
    #define LB_MAGLEV_ARGUMENTS turns, count, largest, size, taken, narrow, wide

    static inline uint32_t lb_maglev_step(uint32_t slot, uint32_t skip, uint32_t size) {
        uint32_t plain = slot + skip, wrapped = plain - size;
        return (int32_t)wrapped < 0 ? plain : wrapped;
    }

    static inline uint32_t lb_maglev_taken(const uint32_t *taken, uint32_t slot) {
        return taken[slot >> 5] >> (slot & 31) & 1;
    }

    typedef uint32_t lb_maglev_search(const uint32_t *taken, uint32_t slot, uint32_t skip, uint32_t size);

    /* The first free slot of a permutation from here on; there is one. */
    static inline uint32_t lb_maglev_free_slot(const uint32_t *taken, uint32_t slot, uint32_t skip, uint32_t size) {
        uint32_t steps[9] = {0, skip}, all;
        for (int i = 2; i < 9; i++)
            steps[i] = lb_maglev_step(steps[i / 2], steps[i - i / 2], size);
        for (;;) {
            all = 0;
            for (int i = 0; i < 8; i++)
                all |= lb_maglev_taken(taken, lb_maglev_step(slot, steps[i], size)) << i;
            if (all != 0xFF)
                return lb_maglev_step(slot, steps[__builtin_ctz(~all)], size);
            slot = lb_maglev_step(slot, steps[8], size);
        }
    }

    #ifdef LB_X86
    LB_AVX2 static inline uint32_t lb_maglev_free_slot_avx2(
            const uint32_t *taken, uint32_t slot, uint32_t skip, uint32_t size) {
        const __m256i range = _mm256_set1_epi32((int)size), last_bit = _mm256_set1_epi32(31);
        uint32_t steps[8] = {0, skip};
        for (int i = 2; i < 8; i++)
            steps[i] = lb_maglev_step(steps[i / 2], steps[i - i / 2], size);
        const __m256i eight = _mm256_set1_epi32((int)lb_maglev_step(steps[4], steps[4], size));
        __m256i slots = _mm256_loadu_si256((const __m256i *)steps);
        __m256i step = _mm256_set1_epi32((int)slot);
        for (;;) {
            slots = _mm256_add_epi32(slots, step);
            slots = _mm256_min_epu32(slots, _mm256_sub_epi32(slots, range));
            __m256i words = _mm256_i32gather_epi32((const int *)taken, _mm256_srli_epi32(slots, 5), 4);
            words = _mm256_sllv_epi32(words, _mm256_andnot_si256(slots, last_bit));     /* the bit becomes the sign */
            uint32_t free_slots = ~(uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(words)) & 0xFF;
            if (free_slots) {
                _mm256_storeu_si256((__m256i *)steps, slots);
                return steps[__builtin_ctz(free_slots)];
            }
            step = eight;
        }
    }

    LB_AVX512 static inline uint32_t lb_maglev_free_slot_avx512(
            const uint32_t *taken, uint32_t slot, uint32_t skip, uint32_t size) {
        const __m512i range = _mm512_set1_epi32((int)size), last_bit = _mm512_set1_epi32(31), one = _mm512_set1_epi32(1);
        __m512i slots = _mm512_setzero_si512(), step;
        static const __mmask16 lanes[4] = {0xAAAA, 0xCCCC, 0xF0F0, 0xFF00};    /* whose number has bit 0, 1, 2, 3 */
        for (int i = 0; i < 4; i++) {
            slots = _mm512_mask_add_epi32(slots, lanes[i], slots, _mm512_set1_epi32((int)skip));
            slots = _mm512_min_epu32(slots, _mm512_sub_epi32(slots, range));
            skip = lb_maglev_step(skip, skip, size);
        }
        step = _mm512_set1_epi32((int)slot);
        for (;;) {
            slots = _mm512_add_epi32(slots, step);
            slots = _mm512_min_epu32(slots, _mm512_sub_epi32(slots, range));
            __m512i words = _mm512_i32gather_epi32(_mm512_srli_epi32(slots, 5), taken, 4);
            words = _mm512_srlv_epi32(words, _mm512_and_epi32(slots, last_bit));
            __mmask16 free_slots = _mm512_testn_epi32_mask(words, one);
            if (free_slots)
                return (uint32_t)_mm_cvtsi128_si32(
                    _mm512_castsi512_si128(_mm512_maskz_compress_epi32(free_slots, slots)));
            step = _mm512_set1_epi32((int)skip);    /* sixteen steps by now */
        }
    }
    #endif

    static inline LB_IN_PLACE void lb_maglev_loop(LB_MAGLEV_PARAMETERS, lb_maglev_search *free_slot) {
        const uint32_t sparse = size / 4;
        uint32_t filled = 0;
        for (uint32_t round = 1;; round++) {
            for (uint32_t i = 0; i < count; i++) {
                lb_maglev_turn *turn = &turns[i];
                /* Envoy's own floating-point test: the heaviest takes a slot each round, the others fall behind. */
                if (round * turn->share < turn->target)
                    continue;
                turn->target += largest;
                uint32_t slot = turn->slot, skip = turn->skip;
                if (filled < sparse)
                    while (lb_maglev_taken(taken, slot))
                        slot = lb_maglev_step(slot, skip, size);
                else
                    slot = free_slot(taken, slot, skip, size);
                taken[slot >> 5] |= 1U << (slot & 31);
                if (narrow)
                    narrow[slot] = (uint16_t)turn->member;
                else
                    wide[slot] = turn->member;
                turn->slot = lb_maglev_step(slot, skip, size);
                if (++filled == size)
                    return;
            }
        }
    }

    #ifdef LB_X86
    LB_AVX2 static void lb_maglev_avx2(LB_MAGLEV_PARAMETERS) { lb_maglev_loop(LB_MAGLEV_ARGUMENTS, lb_maglev_free_slot_avx2); }
    LB_AVX512 static void lb_maglev_avx512(LB_MAGLEV_PARAMETERS) {
        lb_maglev_loop(LB_MAGLEV_ARGUMENTS, lb_maglev_free_slot_avx512);
    }
    #endif

    /* Members by slot, to the one of the two tables that is there; `taken` has a zero bit for each slot. */
    static void lb_maglev_fill(LB_MAGLEV_PARAMETERS) {
    #ifdef LB_X86
        if (lb_simd == LB_WITH_AVX512) {
            lb_maglev_avx512(LB_MAGLEV_ARGUMENTS);
            return;
        }
        if (lb_simd == LB_WITH_AVX2) {
            lb_maglev_avx2(LB_MAGLEV_ARGUMENTS);
            return;
        }
    #endif
        lb_maglev_loop(LB_MAGLEV_ARGUMENTS, lb_maglev_free_slot);
    }
    """
    ctypedef struct MaglevTurn "lb_maglev_turn":
        double share
        double target
        uint32_t slot
        uint32_t skip
        uint32_t member
    void take_turns "lb_maglev_fill"(
        MaglevTurn* turns, uint32_t count, double largest, uint32_t size, uint32_t* taken, uint16_t* narrow, uint32_t* wide
    ) noexcept nogil

cdef struct MaglevKey:
    const char* text
    Py_ssize_t size
    uint32_t position       # in the group


cdef int maglev_order(const void* left, const void* right) noexcept nogil:
    cdef const MaglevKey* a = <const MaglevKey*>left
    cdef const MaglevKey* b = <const MaglevKey*>right
    cdef int order = memcmp(a.text, b.text, min(a.size, b.size))
    if order:
        return order
    if a.size != b.size:
        return -1 if a.size < b.size else 1
    return -1 if a.position < b.position else 1


cdef bint maglev_fill(const Group* group, uint32_t size, uint16_t* narrow, uint32_t* wide) noexcept nogil:
    """Writes members by slot to the one of the two tables that is there. False without memory."""
    cdef MaglevKey* keys = <MaglevKey*>malloc(group.count * sizeof(MaglevKey))
    cdef MaglevTurn* turns = <MaglevTurn*>malloc(group.count * sizeof(MaglevTurn))
    cdef uint32_t* taken = <uint32_t*>calloc(size // 32 + 1, sizeof(uint32_t))
    cdef MaglevTurn* turn
    cdef MaglevKey* key
    cdef double largest = 0.0
    cdef uint32_t i
    if keys == NULL or turns == NULL or taken == NULL:
        free(keys)
        free(turns)
        free(taken)
        return False
    for i in range(group.count):
        keys[i].text = group.hash_keys[i]
        keys[i].size = group.hash_key_sizes[i]
        keys[i].position = i
        largest = max(largest, group.shares[i])
    qsort(keys, group.count, sizeof(MaglevKey), maglev_order)
    for i in range(group.count):
        key = &keys[i]
        turn = &turns[i]
        turn.slot = <uint32_t>(xxh64(key.text, key.size, 0) % size)
        turn.skip = <uint32_t>(xxh64(key.text, key.size, 1) % (size - 1)) + 1
        turn.member = group.members[key.position]
        turn.share = group.shares[key.position]
        turn.target = 0.0
    take_turns(turns, group.count, largest, size, taken, narrow, wide)
    free(keys)
    free(turns)
    free(taken)
    return True
