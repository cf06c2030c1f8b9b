# Outlier detection: endpoints that answer badly are ejected for a while. This file counts how requests end and ejects at
# once for failures in a row; outlier_sweep.pxi judges rates and lets endpoints return, at intervals.
#
# Counting happens in the endpoint's own slot, under the GIL, without a look at the clock: a clock is read only where an
# endpoint is about to be ejected. An ejection marks every picker of the cluster as stale, so the next pick of each, whichever
# thread's, builds its snapshot anew; several ejections before it cost one rebuild.
#
# Reference: Envoy outlier_detection_impl.cc. lbcore besides never ejects the last usable endpoint of a priority.

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(void* object) noexcept

cdef enum:  # causes of an ejection
    CONSECUTIVE_5XX
    CONSECUTIVE_GATEWAY_FAILURE
    CONSECUTIVE_LOCAL_ORIGIN_FAILURE
    SUCCESS_RATE
    FAILURE_PERCENTAGE
    LOCAL_ORIGIN_SUCCESS_RATE
    LOCAL_ORIGIN_FAILURE_PERCENTAGE

cdef tuple CAUSE_NAMES = (
    "consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure",
    "success_rate", "failure_percentage", "local_origin_success_rate", "local_origin_failure_percentage",
)

# Local failures count as the status that Envoy gives them (resultToHttpCode).
cdef enum: LOCAL_FAILURE_STATUS = 503

# Of one kind of success rates in the last interval, percent; -1 where too few endpoints had enough requests.
cdef struct RateFigures:
    double average
    double threshold                # below it an endpoint is an outlier

cdef struct OutlierEvent         # outlier_events.pxi

cdef enum:  # kinds of events
    EVENT_EJECTED
    EVENT_SPARED            # by the enforcing percentage
    EVENT_RETURNED          # at a sweep
    EVENT_PASSED_CHECK      # and returned by that

cdef struct OutlierDetector:
    void* cluster                   # Balancer, borrowed; NULL once it is gone
    uint64_t random
    uint32_t consecutive_5xx        # thresholds; 0: never
    uint32_t consecutive_gateway_failure
    uint32_t consecutive_local_origin_failure
    uint32_t enforcing[7]           # percent, by cause
    uint32_t success_rate_minimum_hosts
    uint64_t success_rate_request_volume
    uint32_t success_rate_stdev_factor  # thousandths
    uint32_t failure_percentage_threshold
    uint32_t failure_percentage_minimum_hosts
    uint64_t failure_percentage_request_volume
    uint32_t max_ejection_percent
    bint always_eject_one_host
    bint as_grpc                    # by gRFC A50 rather than as Envoy
    bint split_errors               # local failures are counted apart from answers
    bint returns_by_check           # a passed active check ends an ejection
    int64_t interval                # ns, as all times here
    int64_t base_ejection_time
    int64_t max_ejection_time
    int64_t max_ejection_time_jitter
    int64_t next_sweep
    int64_t last_time               # the last that was read
    uint32_t ejected                # members that are out
    uint64_t detected[7]            # by cause
    uint64_t enforced[7]
    uint64_t overflow[7]            # not ejected, because too many are
    RateFigures rates[2]            # of answers, of local origin
    RateFigures judged_by           # what the latest success rate was held against
    OutlierEvent* events            # that nobody has taken yet; NULL before the first
    uint32_t event_count
    uint32_t event_room
    bint keeps_events


cdef OutlierDetector* outlier_detector_new(Balancer cluster, object settings, uint64_t seed) except NULL:
    """Reads the validated fields of an OutlierDetection (lbcore/settings.py)."""
    cdef OutlierDetector* detector = <OutlierDetector*>calloc(1, sizeof(OutlierDetector))
    if detector == NULL:
        raise MemoryError("no memory for outlier detection")
    detector.cluster = <void*>cluster
    detector.random = ~seed     # not the picks' own: ejections do not shift them
    detector.consecutive_5xx = settings.consecutive_5xx
    detector.consecutive_gateway_failure = settings.consecutive_gateway_failure
    detector.consecutive_local_origin_failure = settings.consecutive_local_origin_failure
    detector.enforcing[CONSECUTIVE_5XX] = settings.enforcing_consecutive_5xx
    detector.enforcing[CONSECUTIVE_GATEWAY_FAILURE] = settings.enforcing_consecutive_gateway_failure
    detector.enforcing[CONSECUTIVE_LOCAL_ORIGIN_FAILURE] = settings.enforcing_consecutive_local_origin_failure
    detector.enforcing[SUCCESS_RATE] = settings.enforcing_success_rate
    detector.enforcing[FAILURE_PERCENTAGE] = settings.enforcing_failure_percentage
    detector.enforcing[LOCAL_ORIGIN_SUCCESS_RATE] = settings.enforcing_local_origin_success_rate
    detector.enforcing[LOCAL_ORIGIN_FAILURE_PERCENTAGE] = settings.enforcing_failure_percentage_local_origin
    detector.success_rate_minimum_hosts = settings.success_rate_minimum_hosts
    detector.success_rate_request_volume = settings.success_rate_request_volume
    detector.success_rate_stdev_factor = settings.success_rate_stdev_factor
    detector.failure_percentage_threshold = settings.failure_percentage_threshold
    detector.failure_percentage_minimum_hosts = settings.failure_percentage_minimum_hosts
    detector.failure_percentage_request_volume = settings.failure_percentage_request_volume
    detector.max_ejection_percent = settings.max_ejection_percent
    detector.always_eject_one_host = settings.always_eject_one_host
    detector.as_grpc = settings.algorithm == "grpc"
    detector.split_errors = settings.split_external_local_origin_errors
    detector.returns_by_check = settings.successful_active_health_check_uneject_host
    detector.interval = <int64_t>(settings.interval * 1e9)
    detector.base_ejection_time = <int64_t>(settings.base_ejection_time * 1e9)
    detector.max_ejection_time = <int64_t>(settings.max_ejection_time * 1e9)
    detector.max_ejection_time_jitter = <int64_t>(settings.max_ejection_time_jitter * 1e9)
    detector.keeps_events = bool(settings.event_log_path)
    detector.rates[0] = detector.rates[1] = detector.judged_by = RateFigures(average=-1.0, threshold=-1.0)
    return detector


# --- counting ---

cdef void outlier_observe(Slot* slot, const Outcome* outcome) noexcept:
    """How a request ended, as Envoy's putResult takes it."""
    cdef OutlierDetector* detector = slot.totals.detector
    cdef OutlierState* state = &slot.outlier
    if lb_likely(outcome.ok):
        if detector.split_errors:
            local_connected(state)
        state.external.total += 1
        state.external.successes += 1
        state.consecutive_5xx = 0
        state.consecutive_gateway_failure = 0
    elif outcome.status:
        if detector.split_errors:
            local_connected(state)
        # A failure that the caller sees in an answer of another status is the endpoint's: Envoy's ExtOriginRequestFailed.
        answer_failed(slot, outcome.status if outcome.status >= 500 else 500, outcome)
    elif detector.split_errors:
        state.local.total += 1
        state.consecutive_local_origin_failure += 1
        if state.consecutive_local_origin_failure == detector.consecutive_local_origin_failure:
            failures_in_a_row(slot, CONSECUTIVE_LOCAL_ORIGIN_FAILURE, &state.consecutive_local_origin_failure, outcome)
    else:
        answer_failed(slot, LOCAL_FAILURE_STATUS, outcome)


cdef inline void local_connected(OutlierState* state) noexcept:
    state.local.total += 1
    state.local.successes += 1
    state.consecutive_local_origin_failure = 0


cdef void answer_failed(Slot* slot, int status, const Outcome* outcome) noexcept:
    cdef OutlierDetector* detector = slot.totals.detector
    cdef OutlierState* state = &slot.outlier
    state.external.total += 1
    if 502 <= status <= 504:
        state.consecutive_gateway_failure += 1
        if state.consecutive_gateway_failure == detector.consecutive_gateway_failure:
            failures_in_a_row(slot, CONSECUTIVE_GATEWAY_FAILURE, &state.consecutive_gateway_failure, outcome)
    else:
        state.consecutive_gateway_failure = 0
    state.consecutive_5xx += 1
    if state.consecutive_5xx == detector.consecutive_5xx:
        failures_in_a_row(slot, CONSECUTIVE_5XX, &state.consecutive_5xx, outcome)


cdef void failures_in_a_row(Slot* slot, int cause, uint32_t* counter, const Outcome* outcome) noexcept:
    if slot.flags & (EJECTED | DEPARTED):
        return
    outlier_detected(slot, cause, &outcome.now if outcome.now else NULL)
    counter[0] = 0      # also where it was not ejected, so that the next bout is seen too


# --- ejecting ---

cdef void outlier_detected(Slot* slot, int cause, const int64_t* now) noexcept:
    """Ejects a member that is in, as far as the settings allow. `now` is NULL where nobody has read the clock yet."""
    cdef OutlierDetector* detector = slot.totals.detector
    detector.detected[cause] += 1
    if not may_eject(slot):
        detector.overflow[cause] += 1
        return
    if not draw_percent(&detector.random, detector.enforcing[cause]):
        if detector.keeps_events:
            note_spared(slot, cause, now)
        return
    if now != NULL:
        detector.last_time = now[0]
    else:
        read_time(detector)
        if slot.flags & (EJECTED | DEPARTED) or not may_eject(slot):
            return      # the caller's clock let something else in
    eject(slot, cause)


cdef bint may_eject(Slot* slot) noexcept:
    """Whether the cluster can do without this member, too: by percent, and with another usable one in its priority."""
    cdef OutlierDetector* detector = slot.totals.detector
    cdef Snapshot snapshot
    if detector.cluster == NULL or Py_REFCNT(detector.cluster) == 0 or (<Balancer>detector.cluster).snapshot is None:
        return False    # the cluster is gone, or about to go
    snapshot = <Snapshot>(<Balancer>detector.cluster).snapshot
    if not another_is_usable(snapshot, slot):
        return False
    if detector.as_grpc:
        return has_room_grpc(snapshot, slot)
    if detector.always_eject_one_host and detector.ejected == 0:
        return True
    return 100.0 * (detector.ejected + 1) / snapshot.count <= detector.max_ejection_percent


cdef bint another_is_usable(Snapshot snapshot, const Slot* slot) noexcept nogil:
    cdef uint32_t i
    cdef const Slot* other
    for i in range(snapshot.count):
        other = snapshot.slots[i]
        if (
            other.outlier.priority == slot.outlier.priority
            and other != slot
            and not other.outlier.said_out
            and not other.flags & (FAILED_ACTIVE_CHECK | EJECTED)
        ):
            return True
    return False


cdef inline bint draw_percent(uint64_t* random, uint32_t percent) noexcept nogil:
    """True in that many of a hundred cases; certain cases draw nothing."""
    if percent == 0 or percent >= 100:
        return percent != 0
    return lb_multiply_high(random_bits(random), 100) < percent


cdef void read_time(OutlierDetector* detector) noexcept:
    """Keeps the last time where the caller's clock fails; Python then reports the error as one that nobody can catch."""
    cdef Balancer cluster = <Balancer>detector.cluster  # lives while its clock runs
    detector.last_time = read_clock(cluster)


cdef void eject(Slot* slot, int cause) noexcept:
    cdef OutlierDetector* detector = slot.totals.detector
    cdef OutlierState* state = &slot.outlier
    slot.flags |= EJECTED
    detector.ejected += 1
    detector.enforced[cause] += 1
    state.cause = cause
    state.ejected_at = detector.last_time
    state.times_ejected += 1
    state.jitter = 0
    if detector.max_ejection_time_jitter:
        state.jitter = <int64_t>lb_multiply_high(random_bits(&detector.random), detector.max_ejection_time_jitter + 1)
    if <double>detector.base_ejection_time * state.backoff < <double>detector.max_ejection_time + detector.base_ejection_time:
        state.backoff += 1
    note_event(slot, EVENT_EJECTED, cause, detector.last_time, state.returned_at)
    pickers_become_stale(slot.totals)


cdef uint64_t ejected_for(const Slot* slot) noexcept nogil:
    """ns from an ejection until a sweep may end it."""
    cdef OutlierDetector* detector = slot.totals.detector
    cdef double span = min(<double>detector.base_ejection_time * slot.outlier.backoff, <double>detector.max_ejection_time)
    return <uint64_t>span + <uint64_t>slot.outlier.jitter


cdef void let_return(Slot* slot, int64_t now, bint by_check) noexcept:
    cdef OutlierState* state = &slot.outlier
    slot.flags &= ~<uint32_t>EJECTED
    slot.totals.detector.ejected -= 1
    note_event(slot, EVENT_PASSED_CHECK if by_check else EVENT_RETURNED, state.cause, now, state.ejected_at)
    state.returned_at = now
    # Failures that did not eject by themselves do not count again.
    state.consecutive_5xx = 0
    state.consecutive_gateway_failure = 0
    state.consecutive_local_origin_failure = 0
    pickers_become_stale(slot.totals)


cdef inline void return_by_check(Slot* slot, int64_t now) noexcept:
    """Envoy's successful_active_health_check_uneject_host."""
    if slot.flags & EJECTED and slot.totals.detector.returns_by_check:
        let_return(slot, now, True)


# --- membership ---

cdef int outlier_stays(Slot* slot, object endpoint) except -1:
    """Of a member, as it is published: notes what discovery says of it."""
    slot.flags &= ~<uint32_t>DEPARTED
    slot.outlier.priority = endpoint.priority
    slot.outlier.said_out = said_out(endpoint.health)
    return 0


cdef void outlier_departs(Slot* slot) noexcept:
    if slot.flags & EJECTED:
        slot.totals.detector.ejected -= 1
    slot.flags = DEPARTED


# --- telling ---

cdef str ejection_cause(const Slot* slot):
    return CAUSE_NAMES[slot.outlier.cause] if slot.outlier.times_ejected else None


cdef tuple ejection_values(const Slot* slot):
    """Ejected, at, returns at, times, success rate, the same of local origin; None where there is nothing to tell."""
    cdef const OutlierState* state = &slot.outlier
    cdef bint ejected = slot.flags & EJECTED
    return (
        ejected, state.ejected_at if ejected else None,
        state.ejected_at + int(ejected_for(slot)) if ejected else None, state.times_ejected,
        state.success_rate if state.success_rate >= 0.0 else None,
        state.local_success_rate if state.local_success_rate >= 0.0 else None,
    )


cdef dict outlier_values(const OutlierDetector* detector):
    """By Envoy's names of its statistics."""
    cdef uint32_t i
    found = {
        "ejections_active": detector.ejected, "ejections_overflow": 0, "ejections_enforced_total": 0,
        "overflow_by_cause": {},
    }
    for i in range(<uint32_t>len(CAUSE_NAMES)):
        found["ejections_enforced_total"] += detector.enforced[i]
        found[f"ejections_enforced_{CAUSE_NAMES[i]}"] = detector.enforced[i]
        found[f"ejections_detected_{CAUSE_NAMES[i]}"] = detector.detected[i]
        found["ejections_overflow"] += detector.overflow[i]
        found["overflow_by_cause"][CAUSE_NAMES[i]] = detector.overflow[i]
    for name, i in (("success_rate", 0), ("local_origin_success_rate", 1)):
        found[f"{name}_average"] = detector.rates[i].average if detector.rates[i].average >= 0.0 else None
        # A threshold may lie below zero: then nobody can be an outlier.
        found[f"{name}_ejection_threshold"] = detector.rates[i].threshold if detector.rates[i].average >= 0.0 else None
    return found
