# Slow start: the factor by which the weight of an endpoint that has just become available is reduced.
# Reference: Envoy EdfLoadBalancerBase::applySlowStartFactor (load_balancer_impl.cc).

from libc.math cimport pow

cdef struct SlowStartRamp:
    int64_t window          # ns; 0 without slow start
    double exponent         # 1 / aggression
    double smallest         # min_weight_percent / 100


cdef inline double slow_start_factor(const SlowStartRamp* ramp, const Slot* slot, int64_t now) noexcept nogil:
    """1.0 outside the window, else max(smallest, (age / window) ^ exponent)."""
    cdef int64_t age = now - slot.available_since
    cdef double grown
    if age >= ramp.window:
        return 1.0
    # Envoy counts an age of at least one millisecond, so that the factor is never 0 by age alone.
    grown = <double>max(age, <int64_t>1000000) / <double>ramp.window
    if ramp.exponent != 1.0:
        grown = pow(grown, ramp.exponent)
    return min(1.0, max(ramp.smallest, grown))
