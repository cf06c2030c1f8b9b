# Which vector instructions the loops over many keys or endpoints use: the best of the machine at hand, found once, when the
# module is loaded. Each such loop exists for each of them, gives the same bits by all, and is tested by all (`_use_simd`).

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GNUC__)
    #include <immintrin.h>
    #define LB_X86 1
    #define LB_AVX2 __attribute__((target("avx2")))
    #define LB_AVX512 __attribute__((target("avx512f,avx512dq,avx512vl")))
    #endif

    /* Into each of the forms of a loop. */
    #ifdef __GNUC__
    #define LB_IN_PLACE __attribute__((always_inline))
    #else
    #define LB_IN_PLACE
    #endif

    enum { LB_SCALAR, LB_WITH_AVX2, LB_WITH_AVX512 };
    static int lb_simd = LB_SCALAR;

    static int lb_best_simd(void) {
    #ifdef LB_X86
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            return LB_WITH_AVX512;
        if (__builtin_cpu_supports("avx2"))
            return LB_WITH_AVX2;
    #endif
        return LB_SCALAR;
    }
    """
    int simd "lb_simd"
    int best_simd "lb_best_simd"() noexcept nogil

cdef tuple SIMD_NAMES = ("scalar", "avx2", "avx512")

simd = best_simd()


def _use_simd(name=None):
    """Has the loops use other instructions from now on, for tests; None: the best. Returns the name of those in use.

    Raises ValueError at instructions that the machine has not.
    """
    global simd
    level = best_simd() if name is None else SIMD_NAMES.index(name)
    if level > best_simd():
        raise ValueError(f"name {name!r}: this machine has {SIMD_NAMES[best_simd()]} at best")
    simd = level
    return SIMD_NAMES[simd]
