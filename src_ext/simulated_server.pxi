# A server of a simulation: some workers that serve one queue in the order of arrival, at a speed that may change while they
# work. It may answer a share of its requests with an error, after a time of its own.

cdef enum: NOBODY = 0xFFFFFFFF       # no attempt

# One try to have a request served, from the client's pick until the answer is back, heeded or not.
cdef struct Attempt:
    uint64_t serial
    int64_t sent            # ns; when the client picked
    int64_t resumed         # ns; since when a worker has been at it at one speed
    double work             # ns left at speed 1, when resumed
    Slot* slot              # the client's count of it; NULL once it has let go, and for the baselines
    int64_t met             # requests that the client thought the server to have
    int64_t reached         # ns; when it came to the server
    uint32_t found          # requests in flight there
    int64_t latency         # ns; what a probe says of the server, -1 where it says nothing
    Load load               # that the server told when it answered
    uint32_t request
    uint32_t client
    uint32_t server
    uint32_t next           # behind it in the queue, or in the list of free attempts
    uint32_t version        # of its completion, which moves with the server's speed
    uint32_t place          # among those being served
    bint failed
    bint retry
    bint waited_for         # the client has not given it up

cdef struct SimulatedServer:
    uint32_t workers
    uint32_t busy           # workers
    uint32_t waiting        # requests in the queue
    uint32_t outstanding    # sent to it and not answered yet, those on their way either way included
    uint32_t most           # outstanding at once in the measured time
    uint32_t first          # in the queue
    uint32_t last
    bint present            # clients know it
    uint32_t* served        # attempts that workers are at; `busy` of them
    double speed            # 1 is nominal; 0 while it is paused
    double failing          # share of requests that it answers with an error, 0 to 1
    double failure_work     # ns that such an answer takes
    int64_t accounted       # ns; up to when the figures below are
    double busy_time        # worker-nanoseconds in the measured time
    double utilization      # share of workers busy, exponentially weighted
    double completion_rate  # a second, exponentially weighted, as is
    double failure_rate
    Load seen               # its load as it was some time ago, where reports are behind


cdef inline void server_enqueue(SimulatedServer* server, Attempt* attempts, uint32_t index) noexcept nogil:
    attempts[index].next = NOBODY
    if server.waiting == 0:
        server.first = index
    else:
        attempts[server.last].next = index
    server.last = index
    server.waiting += 1


cdef inline uint32_t server_dequeue(SimulatedServer* server, Attempt* attempts) noexcept nogil:
    cdef uint32_t index = server.first
    server.first = attempts[index].next
    server.waiting -= 1
    return index


cdef inline void server_take_up(SimulatedServer* server, Attempt* attempts, uint32_t index) noexcept nogil:
    attempts[index].place = server.busy
    server.served[server.busy] = index
    server.busy += 1


cdef inline void server_let_go(SimulatedServer* server, Attempt* attempts, uint32_t index) noexcept nogil:
    cdef uint32_t moved
    server.busy -= 1
    moved = server.served[server.busy]
    server.served[attempts[index].place] = moved
    attempts[moved].place = attempts[index].place


cdef inline uint32_t server_in_flight(const SimulatedServer* server) noexcept nogil:
    """Requests that it has and has not answered."""
    return server.waiting + server.busy


cdef void server_account(
    SimulatedServer* server, int64_t now, int64_t measured_from, int64_t measured_until, double window
) noexcept nogil:
    """Brings the figures up to now; call it before anything that they depend on changes. `window` in ns."""
    cdef int64_t start = max(server.accounted, measured_from)
    cdef int64_t end = min(now, measured_until)
    cdef double kept
    if end > start:
        server.busy_time += <double>server.busy * <double>(end - start)
    if window > 0.0 and now > server.accounted:
        kept = exp(<double>(server.accounted - now) / window)
        server.utilization = server.utilization * kept + <double>server.busy / <double>server.workers * (1.0 - kept)
        server.completion_rate *= kept
        server.failure_rate *= kept
    server.accounted = now


cdef inline Load server_load(const SimulatedServer* server) noexcept nogil:
    """What it would tell now."""
    cdef Load load
    load.in_flight = server_in_flight(server)
    load.utilization = server.utilization
    load.requests_per_second = server.completion_rate
    load.errors_per_second = server.failure_rate
    return load


cdef inline double server_expected_delay(const SimulatedServer* server) noexcept nogil:
    """Of one request more, in mean service times: what the baseline that knows the true speeds compares."""
    cdef double rounds = <double>(server.outstanding + 1) / <double>server.workers
    return max(rounds, 1.0) / max(server.speed, 1e-12)
