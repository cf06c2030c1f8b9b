# Integer arithmetic that C has no operator for, and the random numbers.
#
# Random numbers are wyrand's (Wang Yi, public domain): the state is a plain counter, so a batch of n draws is reserved by
# adding n steps. A bounded draw is a multiply-shift (Lemire, "Fast Random Integer Generation in an Interval", 2019)
# without rejection: its bias is below n / 2^64.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    typedef unsigned __int128 lb_uint128;
    static inline uint64_t lb_multiply_high(uint64_t a, uint64_t b) { return (uint64_t)(((lb_uint128)a * b) >> 64); }
    static inline uint64_t lb_divide_wide(uint64_t high, uint64_t divisor) {
        return (uint64_t)(((lb_uint128)high << 64) / divisor);
    }
    static inline void *lb_load_pointer(void **at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
    static inline void lb_store_pointer(void **at, void *value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
    #define lb_likely(x) __builtin_expect(!!(x), 1)
    #define lb_unlikely(x) __builtin_expect(!!(x), 0)
    """
    uint64_t lb_multiply_high(uint64_t a, uint64_t b) noexcept nogil
    uint64_t lb_divide_wide(uint64_t high, uint64_t divisor) noexcept nogil
    void* load_pointer "lb_load_pointer"(void** at) noexcept nogil
    void store_pointer "lb_store_pointer"(void** at, void* value) noexcept nogil
    bint lb_likely(bint x) noexcept nogil
    bint lb_unlikely(bint x) noexcept nogil

cdef uint64_t WYRAND_STEP = 0xA0761D6478BD642FULL
cdef enum: INT32_LARGEST = 2147483647
cdef int64_t INT64_LARGEST = 9223372036854775807


cdef inline uint64_t wyrand_mix(uint64_t state) noexcept nogil:
    cdef uint64_t other = state ^ <uint64_t>0xE7037ED1A0B428DBULL
    return lb_multiply_high(state, other) ^ (state * other)


cdef inline uint64_t random_bits(uint64_t* state) noexcept nogil:
    state[0] += <uint64_t>0xA0761D6478BD642FULL
    return wyrand_mix(state[0])


cdef inline double random_unit(uint64_t* state) noexcept nogil:
    """Uniform in [0, 1)."""
    return <double>(random_bits(state) >> 11) * (1.0 / 9007199254740992.0)


# Division by a number known when a table is built: Granlund and Montgomery, "Division by Invariant Integers using
# Multiplication" (1994), in the form with one addition, which is exact for every 64-bit dividend and any divisor > 1.
cdef struct Divisor:
    uint64_t value
    uint64_t magic
    uint32_t shift


cdef inline void divisor_set(Divisor* divisor, uint64_t value) noexcept nogil:
    cdef uint32_t bits = 0
    while bits < 63 and (<uint64_t>1 << (bits + 1)) <= value:
        bits += 1
    divisor.value = value
    if value & (value - 1) == 0:
        # The quotient is then ((n - 0) >> 1 + 0) >> (bits - 1).
        divisor.magic = 0
        divisor.shift = bits - 1
        return
    # floor(2^(64 + bits + 1) / value) + 1, less its leading 2^64.
    cdef uint64_t quotient = lb_divide_wide(<uint64_t>1 << bits, value)
    cdef uint64_t rest = 0 - quotient * value  # remainder modulo 2^64, exact because it is below value
    cdef uint64_t twice = rest + rest
    divisor.magic = quotient * 2 + (1 if twice >= value or twice < rest else 0) + 1
    divisor.shift = bits


cdef inline uint64_t remainder_of(uint64_t number, const Divisor* divisor) noexcept nogil:
    cdef uint64_t high = lb_multiply_high(divisor.magic, number)
    cdef uint64_t quotient = (((number - high) >> 1) + high) >> divisor.shift
    return number - quotient * divisor.value
