# Monotonic time in nanoseconds, read natively; a caller's clock replaces it (balancer.pxi).

cdef extern from "<time.h>" nogil:
    ctypedef int clockid_t
    cdef struct timespec:
        int64_t tv_sec
        long tv_nsec
    int clock_gettime(clockid_t clock, timespec* now)
    const clockid_t CLOCK_MONOTONIC


cdef inline int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1000000000 + now.tv_nsec
