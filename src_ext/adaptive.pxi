# Adaptive: the least expected delay, learned. Each endpoint's score is
#
#     ratio * (queue + workers) / weight
#
# - queue: requests that it has. Its own client's in flight, or, if more, what it last reported plus what this client has
#   sent since (the local queues of LSQ: Vargaftik, Keslassy, Orda, IEEE/ACM ToN 2020).
# - ratio: how long it takes for a request, to what the fleet takes: a mean of past latencies, each divided by what the
#   queue that it met explains; more where it fails more than others (adaptive_failures.pxi). It counts as far as it is credible: n / (n + k) with n samples, where k is the variance
#   between samples over that between endpoints (Buehlmann, "Experience Rating and Credibility", ASTIN 1967). Where
#   endpoints do not differ beyond chance, all ratios are 1, and the shortest queue is joined.
# - workers: after how many requests ahead an answer takes twice as long, learned of the fleet: the parallelism of a
#   server, and whatever else of a latency does not depend on the queue that this client sees.
#
# Between picks what was learned fades: of an endpoint that nobody uses, so that it is tried again, one request at a time.
# Nothing is forgotten sooner than it could be learned anew: a client that sends little takes longer to forget (`patience`).
# The least of all is picked, never of a sample: sampling over stale estimates herds. Of several that are least it is the one
# whose turn it is, else any of them. Where weights differ, an idle endpoint takes its turn by weight even if others are
# less loaded for theirs, so that weights are shares of the traffic also while nobody is busy.
#
# Who picks and never counts a request (`pick` without `acquire`, `pick_many`) moves no score, and would be sent to one
# endpoint for ever: after a few such picks in a row endpoints take turns, each the more often the quicker it is.


from libc.math cimport log, rint

cdef enum:
    DEVIATIONS = 3                          # standard errors beyond which one endpoint's ratio is believed by itself
    LATELY = 3                              # samples, of what an endpoint's last answers say
cdef double WORKERS_STEP = 0.01             # of the logarithm, a sample
cdef double MOST_WORKERS = 256.0
cdef double RATIO_STEP = 0.2                # of its logarithm: endpoints that differ by less than a tenth share the work
cdef double SMALLEST_RATIO = 0.01
cdef double RESOLUTION = 50000.0            # ns; about a round trip on loopback: what differs below it is the caller's own doing
cdef double LEAST_FLUCTUATION = 0.001       # a thirtieth of a latency, squared: less is no news
cdef double JUDGED_BY = 20.0                # samples, at most, of how sure one may be of an endpoint: surer, many clients would
                                            # believe, together and too late, in the queues that they make. At least, of how
                                            # long it takes to forget: sooner, they would try the slow all the time
cdef uint64_t ROUNDS = 4                    # requests to each endpoint, for which a failure is held to be of the same time
cdef double LEAST_FAILING = 0.001           # of an endpoint's answers; less is none
cdef double LONGEST_PAUSE = 100.0           # usual intervals between two requests, that one counts for at most
cdef int64_t SHORTEST_REFRESH = 1000000     # ns
cdef int64_t LONGEST_REFRESH = 100000000    # ns
cdef int64_t REFRESH_EACH = 1000            # ns an endpoint, at least: a refresh takes some hundredths of that

cdef struct AdaptiveFleet:
    Fleet base
    double recovery_time    # ns in which what was learned falls to 1/e while an endpoint is not used
    double memory           # samples
    double lasting          # samples: `memory`, and JUDGED_BY at least
    double sample_limit     # of the mean, that one sample counts for at most
    double error_penalty    # times slower that one is taken for which always fails, where no other does
    SlowStartRamp ramp
    int64_t refreshed_at    # ns
    uint64_t random
    double quickest         # the least ratio
    uint64_t sends
    uint64_t paced_sends    # as of `paced_at`
    int64_t paced_at        # ns
    double pace             # ns between two sends, over the last FLEET_MEMORY or so; 0 before the second
    double patience         # ns in which what was learned falls to 1/e: recovery_time, or more
    uint64_t samples
    double mean             # ns of a request without a queue, harmonic: slow endpoints count less; 0 before the first
    double variance         # of samples, relative to their endpoint's mean
    double doubt            # Buehlmann's k; infinite where endpoints do not differ beyond chance
    double workers
    double agreement        # of what one answer and the ones shortly before it say beyond their endpoint's mean
    double fluctuation      # of the latter
    uint64_t answers        # since the last refresh
    uint64_t failures       # of these
    double failing          # share of answers that fail, over the last FLEET_MEMORY or so
    int64_t answering       # endpoints that have answered
    int64_t failed_last     # of them, those whose last answer was a failure, not long ago
    double shares           # sum of the endpoints' own shares of failures
    uint32_t reporting      # endpoints that report requests in flight
    double reported         # by them together

cdef struct AdaptiveSelector:
    Selector base
    AdaptiveFleet* fleet    # the cluster's, which outlives its snapshots
    Scoreboard* board
    uint32_t first, end     # blocks of the board that hold just this group; none where they hold others too
    uint32_t* places        # by position in the group
    uint32_t* members_at    # by place, from that of block `first`
    Schedule turns          # by weight; none with equal weights


cdef Fleet* adaptive_fleet(const PolicySettings* settings, uint64_t random) noexcept nogil:
    cdef AdaptiveFleet* fleet = <AdaptiveFleet*>calloc(1, sizeof(AdaptiveFleet))
    if fleet == NULL:
        return NULL
    fleet.base.free = adaptive_fleet_free
    fleet.base.sent = adaptive_sent
    fleet.base.probed = adaptive_probed
    fleet.base.refresh = adaptive_refresh
    fleet.base.introduce = adaptive_introduce
    fleet.base.learned = adaptive_learned
    fleet.recovery_time = fleet.patience = settings.recovery_time
    fleet.memory = settings.memory
    fleet.lasting = max(fleet.memory, JUDGED_BY)
    fleet.sample_limit = settings.sample_limit
    fleet.error_penalty = settings.error_penalty
    fleet.ramp = settings.ramp
    fleet.random = random
    fleet.variance = 1.0    # of exponential service, until there are samples
    fleet.doubt = LB_TALLEST
    fleet.workers = 1.0
    fleet.quickest = 1.0
    return &fleet.base


cdef void adaptive_fleet_free(Fleet* fleet) noexcept nogil:
    scoreboard_release(fleet.board)
    free(fleet)


# Picking

cdef Selector* adaptive_new(Group* group, uint64_t* random) noexcept nogil:
    cdef AdaptiveSelector* selector = <AdaptiveSelector*>selector_new(sizeof(AdaptiveSelector), group)
    if selector == NULL:
        return NULL
    selector.base.choose = adaptive_choose
    selector.base.choose_many = choose_one_by_one
    selector.base.score = adaptive_score
    selector.base.scans = True
    selector.base.free = adaptive_free
    selector.fleet = <AdaptiveFleet*>selector.base.slots[0].totals.fleet
    selector.board = group.board
    selector.board.refs += 1
    selector.places = group.places
    group.places = NULL
    if not adaptive_find_range(selector) or not (
        group.equal_weights or schedule_build(&selector.turns, selector.base.weights, selector.base.count)
    ):
        adaptive_free(&selector.base)
        return NULL
    selector.base.cursor = <uint32_t>lb_multiply_high(random_bits(random), selector.turns.length or selector.base.count)
    return &selector.base


cdef void adaptive_free(Selector* base) noexcept nogil:
    cdef AdaptiveSelector* selector = <AdaptiveSelector*>base
    scoreboard_release(selector.board)
    free(selector.places)
    free(selector.members_at)
    free(selector.turns.order)
    selector_free(base)


cdef bint adaptive_find_range(AdaptiveSelector* selector) noexcept nogil:
    """The blocks that hold the group and nobody else. False without memory."""
    cdef uint32_t first = selector.board.blocks
    cdef uint32_t last = 0
    cdef uint32_t others = 0
    cdef uint32_t i, room
    for i in range(selector.base.count):
        first = min(first, selector.places[i] // BLOCK)
        last = max(last, selector.places[i] // BLOCK)
    if first == NOWHERE:
        return True
    room = (last + 1 - first) * BLOCK
    for i in range(first * BLOCK, first * BLOCK + room):
        others += selector.board.slots[i] != NULL
    if others != selector.base.count:
        return True
    selector.members_at = <uint32_t*>calloc(room, sizeof(uint32_t))
    if selector.members_at == NULL:
        return False
    for i in range(selector.base.count):
        selector.members_at[selector.places[i] - first * BLOCK] = selector.base.members[i]
    selector.first = first
    selector.end = last + 1
    return True


cdef int32_t adaptive_choose(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef AdaptiveSelector* selector = <AdaptiveSelector*>base
    cdef uint32_t position
    cdef int64_t turn
    selector.fleet.base.uncounted += 1
    if lb_unlikely(selector.fleet.base.uncounted > UNCOUNTED):
        turn = adaptive_turn_by_speed(selector, draw)
        if turn >= 0:
            return <int32_t>base.members[turn]
    position = adaptive_next_turn(selector)
    if selector.turns.length and adaptive_takes_turn(base.slots[position]):
        return <int32_t>base.members[position]
    if selector.end:
        return <int32_t>selector.members_at[
            scoreboard_least(selector.board, selector.first, selector.end, selector.places[position], &draw.random)
            - selector.first * BLOCK
        ]
    return adaptive_scan(selector, position, draw)


cdef int32_t adaptive_scan(AdaptiveSelector* selector, uint32_t preferred, Draw* draw) noexcept nogil:
    """Over places that are scattered, as those of a subset."""
    cdef const int32_t* scores = selector.board.scores
    cdef uint32_t best = preferred
    cdef int32_t least = scores[selector.places[preferred]]
    cdef uint32_t ties = 0
    cdef uint32_t i
    cdef int32_t score
    for i in range(selector.base.count):
        score = scores[selector.places[i]]
        if score < least:
            best = i
            least = score
            ties = 1
        elif score == least and ties:
            ties += 1
            if lb_multiply_high(random_bits(&draw.random), ties) == 0:
                best = i
    return <int32_t>selector.base.members[best]


cdef inline uint32_t adaptive_next_turn(AdaptiveSelector* selector) noexcept nogil:
    """The position whose turn it is; turns go round by weight."""
    cdef uint32_t turn = selector.base.cursor
    cdef uint32_t turns = selector.turns.length or selector.base.count
    selector.base.cursor = 0 if turn + 1 == turns else turn + 1
    return selector.turns.order[turn] if selector.turns.length else turn


cdef int64_t adaptive_turn_by_speed(AdaptiveSelector* selector, Draw* draw) noexcept nogil:
    """The position of one that this client has no request at, each as often as it is quick: the quickest take all of
    their turns. -1 where none has taken its turn in a whole round."""
    cdef const Slot* slot
    cdef uint32_t position
    cdef uint32_t i
    for i in range(selector.turns.length or selector.base.count):
        position = adaptive_next_turn(selector)
        slot = selector.base.slots[position]
        if slot.active == 0 and (
            random_unit(&draw.random) * slot.ratio * (max(slot.reported, 0.0) / selector.fleet.workers + 1.0)
            < selector.fleet.quickest
        ):
            return position
    return -1


cdef inline bint adaptive_takes_turn(const Slot* slot) noexcept nogil:
    """Idle as far as is known, and not slower than the fleet."""
    return slot.active == 0 and slot.reported <= 0.0 and slot.ratio <= 1.0


cdef double adaptive_score(Selector* base, uint32_t position, int64_t now) noexcept nogil:
    cdef AdaptiveSelector* selector = <AdaptiveSelector*>base
    return lb_score_of(selector.board.scores[selector.places[position]])


cdef inline double adaptive_queue(const AdaptiveFleet* fleet, const Slot* slot, int64_t active) noexcept nogil:
    """Requests that the endpoint has, as far as is known."""
    if lb_likely(slot.reported < 0.0):
        if lb_likely(fleet.reporting == 0 or fleet.sends >= slot.introduced):
            return <double>active
        return max(fleet.reported / fleet.reporting, <double>active)
    return max(slot.reported, <double>active)


cdef inline double adaptive_load(const AdaptiveFleet* fleet, const Slot* slot, int64_t active) noexcept nogil:
    return slot.factor * (adaptive_queue(fleet, slot, active) + fleet.workers)


# Learning

cdef void adaptive_introduce(Fleet* base, Slot* slot, uint32_t count) noexcept:
    """Who joins a fleet that reports its load is taken for an average one at first, or each of many clients would send it a
    request at once. It is taken to be idle when a round robin would have reached it: after as many requests as there are
    endpoints on average, evenly spread over twice as many."""
    cdef AdaptiveFleet* fleet = <AdaptiveFleet*>base
    slot.introduced = fleet.sends + 1 + lb_multiply_high(random_bits(&fleet.random), <uint64_t>2 * count)


cdef int64_t adaptive_sent(Slot* slot, int64_t now) noexcept:
    cdef AdaptiveFleet* fleet = <AdaptiveFleet*>slot.totals.fleet
    cdef double met = adaptive_queue(fleet, slot, slot.active - 1)
    fleet.sends += 1
    fleet.base.uncounted = 0
    if slot.reported >= 0.0:
        slot.reported += 1.0
    if slot.active == 1:
        slot.waiting_since = now
    scoreboard_write(fleet.base.board, slot.place, adaptive_load(fleet, slot, slot.active))
    return <int64_t>(min(met, 9e18) + 0.5)


cdef void adaptive_probed(Slot* slot, const Load* load, int64_t latency, int64_t now, uint32_t count) noexcept:
    """A probe's requests in flight count as an answer's; its latency is no request's."""
    cdef AdaptiveFleet* fleet = <AdaptiveFleet*>slot.totals.fleet
    slot.reported = <double>load.in_flight
    slot.reported_at = now
    scoreboard_write(fleet.base.board, slot.place, adaptive_load(fleet, slot, slot.active))


cdef void adaptive_observe(Slot* slot, const Outcome* outcome) noexcept:
    cdef AdaptiveFleet* fleet = <AdaptiveFleet*>slot.totals.fleet
    cdef int64_t now = fleet.refreshed_at
    cdef bint told = outcome != NULL and outcome.load != NULL and outcome.load.in_flight >= 0
    if told:
        slot.reported = <double>outcome.load.in_flight
        slot.reported_at = outcome.now
    elif outcome != NULL and outcome.now - slot.reported_at > fleet.patience:
        slot.reported = -1.0    # it has stopped reporting
    elif slot.reported > 0.0:
        slot.reported = max(slot.reported - 1.0, 0.0)   # one has left, whatever else has happened
    if outcome != NULL:
        now = max(now, outcome.now)     # who ends requests natively tells no time
        adaptive_count(fleet, slot, outcome.ok, now)
        # A server that reports is judged by answers with reports: what a client knows of its queue otherwise is too old.
        if outcome.ok and outcome.latency >= 0 and (told or slot.reported < 0.0):
            adaptive_learn(fleet, slot, outcome, told)
        slot.waiting_since = now
        if not outcome.ok:
            adaptive_judge(fleet, slot, now)    # at once: until the next refresh it might fail a hundred more
    scoreboard_write(fleet.base.board, slot.place, adaptive_load(fleet, slot, slot.active - 1))


cdef void adaptive_learn(AdaptiveFleet* fleet, Slot* slot, const Outcome* outcome, bint told) noexcept:
    cdef double met = <double>outcome.met if outcome.met >= 0 else adaptive_queue(fleet, slot, slot.active - 1)
    # What a request leaves behind is distributed as what it met, and known better by its server than by its client.
    cdef double length = 1.0 + (<double>outcome.load.in_flight if told else met) / fleet.workers
    cdef double latency = max(<double>outcome.latency, RESOLUTION)
    cdef double usual = slot.estimate if slot.samples else fleet.mean
    cdef double residual, weight
    if fleet.mean == 0.0:
        fleet.mean = latency / length
        usual = fleet.mean
    latency = min(latency, fleet.sample_limit * max(usual, fleet.mean) * length)
    adaptive_age(fleet, slot, outcome.now, length)
    residual = (latency - usual * length) / (usual * slot.mean_length)
    fleet.samples += 1
    weight = 1.0 / min(fleet.samples + 20, <uint64_t>FLEET_MEMORY)
    fleet.variance += (residual * residual - fleet.variance) * weight
    adaptive_learn_workers(fleet, slot, latency / (usual * length) - 1.0, met)
    adaptive_learn_lately(fleet, slot, 0.0 if told else max(-1.0, min(residual, 1.0)), 0.0 if told else weight)
    slot.mean_latency += (latency - slot.mean_latency) / slot.samples
    slot.mean_length += (length - slot.mean_length) / slot.samples
    slot.estimate = slot.mean_latency / slot.mean_length


cdef inline void adaptive_age(AdaptiveFleet* fleet, Slot* slot, int64_t now, double length) noexcept:
    """Lets what was learned fade towards the fleet's mean, and counts one more sample."""
    cdef double kept
    if slot.samples:
        kept = adaptive_kept(fleet, slot, now)
        slot.samples = min(slot.samples * kept + 1.0, fleet.memory)
        slot.mean_latency += (fleet.mean * slot.mean_length - slot.mean_latency) * (1.0 - kept)
    else:
        slot.samples = 1.0
        slot.mean_length = length
        slot.mean_share = -1.0
    slot.estimated_at = now


cdef inline void adaptive_learn_workers(AdaptiveFleet* fleet, Slot* slot, double surprise, double met) noexcept:
    """If answers that met a longer queue than usual are quicker than that explains, queues explain less: a step of
    gradient descent on the squared surprise, in the logarithm of `workers`."""
    cdef double share
    if met == 0.0 and slot.mean_share == 0.0:
        return
    share = met / (met + fleet.workers)     # of a latency, that the queue explains
    if slot.mean_share < 0.0:
        slot.mean_share = share
    fleet.workers *= 1.0 - WORKERS_STEP * max(-1.0, min(1.0, surprise)) * (share - slot.mean_share)
    fleet.workers = max(1.0, min(MOST_WORKERS, fleet.workers))
    slot.mean_share += (share - slot.mean_share) / slot.samples


cdef inline void adaptive_learn_lately(AdaptiveFleet* fleet, Slot* slot, double residual, double weight) noexcept:
    """How far one answer agrees with those shortly before it: 0 where each is by chance, more where there is a queue that
    this client does not see."""
    if slot.samples >= fleet.memory / 4.0:
        fleet.agreement += (residual * slot.lately - fleet.agreement) * weight
        fleet.fluctuation += (slot.lately * slot.lately - fleet.fluctuation) * weight
    slot.lately += (residual - slot.lately) / LATELY


cdef inline double adaptive_kept(const AdaptiveFleet* fleet, const Slot* slot, int64_t now) noexcept nogil:
    """Of what is known of an endpoint that has not been used since: all if it is good, else less and less, so that it is
    tried again; but that may cost it a part of its time only, however many clients do."""
    if slot.estimate <= fleet.mean or now <= slot.estimated_at:
        return 1.0
    return exp(-<double>(now - slot.estimated_at) / max(fleet.patience, PROBATION * slot.estimate))
