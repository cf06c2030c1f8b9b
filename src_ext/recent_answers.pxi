# What a simulated server knows of its own latency: for its last answers, how many requests each had found before it and how
# long it then took there. A probe gets the median of those that found about as many as it does (Prequal, NSDI 2024). A
# server that is idle and has not answered for a while says 0: it would otherwise be shunned for ever for what once was.

cdef enum:
    REMEMBERED = 128        # answers
    ENOUGH = 8              # answers, of which a median is taken; of ties in distance all count
cdef int64_t FORGOTTEN = 1000000000     # ns

cdef struct RecentAnswer:
    int64_t at              # ns
    int64_t latency         # ns, from reaching the server to leaving it
    uint32_t found          # requests in flight

cdef struct RecentAnswers:
    RecentAnswer answers[REMEMBERED]
    uint64_t count


cdef inline void answers_note(RecentAnswers* recent, const Attempt* answered, int64_t now) noexcept nogil:
    cdef RecentAnswer* answer = &recent.answers[recent.count % REMEMBERED]
    answer.at = now
    answer.latency = now - answered.reached
    answer.found = answered.found
    recent.count += 1


cdef inline uint32_t answer_distance(const RecentAnswer* answer, uint32_t in_flight) noexcept nogil:
    return max(answer.found, in_flight) - min(answer.found, in_flight)


cdef int64_t answers_estimate(const RecentAnswers* recent, uint32_t in_flight, int64_t now) noexcept nogil:
    """ns: the median, the lower of two, over answers that found nearly as many; -1 where a busy server has none."""
    cdef uint32_t known = <uint32_t>min(recent.count, <uint64_t>REMEMBERED)
    cdef int64_t nearest[ENOUGH]    # distances, ascending
    cdef int64_t ordered[REMEMBERED]
    cdef const RecentAnswer* answer
    cdef uint32_t kept = 0
    cdef uint32_t near = 0
    cdef uint32_t i, place
    cdef int64_t distance
    for i in range(known):
        answer = &recent.answers[i]
        distance = answer_distance(answer, in_flight)
        if now - answer.at > FORGOTTEN or (kept == ENOUGH and distance >= nearest[ENOUGH - 1]):
            continue
        place = kept - (kept == ENOUGH)
        kept = place + 1
        while place > 0 and nearest[place - 1] > distance:
            nearest[place] = nearest[place - 1]
            place -= 1
        nearest[place] = distance
    if kept == 0:
        return -1 if in_flight else 0
    for i in range(known):
        answer = &recent.answers[i]
        if now - answer.at > FORGOTTEN or answer_distance(answer, in_flight) > nearest[kept - 1]:
            continue
        place = near
        while place > 0 and ordered[place - 1] > answer.latency:
            ordered[place] = ordered[place - 1]
            place -= 1
        ordered[place] = answer.latency
        near += 1
    return ordered[(near - 1) // 2]
