# The baselines of a simulation: what a policy would do that sees every server at once, through the network.

cdef enum Baseline:
    NO_BASELINE
    SHORTEST_QUEUE          # JSQ: the fewest requests outstanding in truth
    SHORTEST_DELAY          # SED: and it knows the true speeds


cdef uint32_t baseline_choose(
    int baseline, const SimulatedServer* servers, uint32_t count, uint64_t* random
) noexcept nogil:
    """Ties of delay go to the fewer outstanding, and those that remain are broken evenly. NOBODY where none is present."""
    cdef uint32_t best = NOBODY
    cdef uint32_t ties = 0
    cdef uint32_t i
    cdef double delay
    cdef double least = 0.0
    cdef const SimulatedServer* server
    for i in range(count):
        server = &servers[i]
        if not server.present:
            continue
        delay = server_expected_delay(server) if baseline == SHORTEST_DELAY else 0.0
        if best == NOBODY or delay < least or (delay == least and server.outstanding < servers[best].outstanding):
            best = i
            least = delay
            ties = 1
        elif delay == least and server.outstanding == servers[best].outstanding:
            ties += 1
            if lb_multiply_high(random_bits(random), ties) == 0:
                best = i
    return best
