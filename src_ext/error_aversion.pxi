# Who fails fast looks quick, and would draw all traffic. Policies that go by latency therefore take an endpoint for the slower
# the more of its answers fail beyond what is usual in its fleet: where all fail alike, nobody is avoided, and one failure
# among many answers weighs little. What was seen of it fades with time, so that it is tried again. Reference: the error
# aversion of Prequal (NSDI 2024); linkerd2-proxy's load biaser, which takes 5 s for each failure, does the same without a
# measure of what is usual.

from libc.math cimport exp

cdef enum:
    FAILURE_MEMORY = 10     # answers, of an endpoint's share of failures
cdef double FORGET_FAILURES = 1e10          # ns in which a share of failures falls to 1/e


cdef inline double failure_share(const Slot* slot, int64_t now) noexcept nogil:
    """0 to 1, of its last answers."""
    if slot.failing <= 0.0 or now <= slot.answered_at:
        return slot.failing
    return slot.failing * exp((slot.answered_at - now) / FORGET_FAILURES)


cdef inline double failure_excess(const Slot* slot, double usual, int64_t now) noexcept nogil:
    """How much more often it fails than is usual."""
    if lb_likely(slot.failing <= usual):
        return 0.0
    return max(0.0, failure_share(slot, now) - usual)


cdef inline void failures_learn(Slot* slot, double* usual, const Outcome* outcome) noexcept nogil:
    cdef double failed = 0.0 if outcome.ok else 1.0
    if failed or slot.failing > 0.0:
        slot.failing = failure_share(slot, outcome.now)
        slot.failing += (failed - slot.failing) / FAILURE_MEMORY
    slot.answered_at = outcome.now
    usual[0] += (failed - usual[0]) / FLEET_MEMORY
