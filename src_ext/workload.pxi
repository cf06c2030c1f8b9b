# What a simulation is asked to serve: when requests arrive, how much work each is, which client has it, which key it bears.
# Each of the four has random numbers of its own and each request takes equally many of them, whatever a policy does with it:
# all policies meet the same requests (common random numbers), and what separates two runs is the policy alone.

from libc.math cimport cos, exp, log, sqrt

cdef enum ServiceTimeKind:
    EXPONENTIAL
    HYPEREXPONENTIAL
    LOGNORMAL
    BIMODAL
    PARETO
    DETERMINISTIC

# Work is in nanoseconds of a server of speed 1. Every kind is scaled so that its mean is `mean`.
cdef struct ServiceTime:
    ServiceTimeKind kind
    double mean             # ns
    double shape            # lognormal: sigma; of two kinds: share of the long ones, 0 to 1; Pareto: alpha, above 1
    double factor           # of two kinds: how many times as long those are
    uint64_t random

cdef struct Arrivals:
    double interval         # ns between two, on average
    int64_t next            # ns; when the next one comes
    uint64_t left
    uint64_t random
    uint64_t client_random
    uint64_t key_random


cdef inline double exponential_unit(uint64_t* random) noexcept nogil:
    return -log(1.0 - random_unit(random))


cdef double service_time_draw(ServiceTime* service) noexcept nogil:
    cdef double unit, mean
    cdef double shape = service.shape
    if service.kind == EXPONENTIAL:
        return service.mean * exponential_unit(&service.random)
    if service.kind == LOGNORMAL:
        # Box and Muller's cosine half; the sine half is thrown away.
        unit = sqrt(2.0 * exponential_unit(&service.random)) * cos(6.283185307179586 * random_unit(&service.random))
        return service.mean * exp(shape * unit - shape * shape / 2.0)
    unit = random_unit(&service.random)
    if service.kind == BIMODAL or service.kind == HYPEREXPONENTIAL:
        mean = service.mean * (service.factor if unit < shape else 1.0) / (1.0 + shape * (service.factor - 1.0))
        return mean if service.kind == BIMODAL else mean * exponential_unit(&service.random)
    if service.kind == PARETO:
        return service.mean * (shape - 1.0) / shape * pow(1.0 - unit, -1.0 / shape)
    return service.mean


cdef inline void arrivals_advance(Arrivals* arrivals) noexcept nogil:
    """A Poisson process: on to the next arrival."""
    arrivals.next = time_after(arrivals.next, arrivals.interval * exponential_unit(&arrivals.random))


cdef inline uint64_t random_stream(uint64_t seed, uint64_t stream) noexcept nogil:
    """The state of one of a seed's independent sources of random numbers."""
    return wyrand_mix(wyrand_mix(seed + <uint64_t>0xA0761D6478BD642FULL) + stream * <uint64_t>0xE7037ED1A0B428DBULL)
