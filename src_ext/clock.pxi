# Monotonic time in nanoseconds, read natively; a caller's clock replaces it (balancer.pxi), itself read natively where it
# is a VirtualClock.

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


@cython.final
cdef class VirtualClock:
    """Time that stands still until it is told to go on: `Cluster(clock=VirtualClock())`, for simulations and tests.

    Fields:
        now: nanoseconds; set it to whatever the time shall be.

    >>> from lbcore import VirtualClock
    >>> clock = VirtualClock(5_000_000_000)
    >>> clock.advance(1.5)
    >>> clock()
    6500000000
    """

    def __init__(self, now=1_000_000_000):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        """Lets that many seconds pass. Raises OverflowError where `now` would exceed 64 bits."""
        self.now = <object>self.now + round(seconds * 1e9)
