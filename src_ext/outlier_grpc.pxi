# Outlier detection as gRPC does it (gRFC A50), for clusters that shall agree with gRPC clients: each priority by itself,
# rates only, failures being every call that did not end well; ejected endpoints stay in the mean, and return after the
# judging. What is left open there, or differs among its implementations, is decided as in C-core, and an endpoint that is
# out is not ejected again. Times by which ejections grow and shrink again are as in Envoy; the last usable endpoint stays.


cdef void outlier_observe_grpc(Slot* slot, const Outcome* outcome) noexcept:
    slot.outlier.external.total += 1
    slot.outlier.external.successes += outcome.ok and outcome.status < 400     # 400 and more: a code other than OK


cdef void outlier_sweep_grpc(Snapshot snapshot, OutlierDetector* detector, int64_t now) noexcept:
    cdef uint32_t i, priority
    cdef Slot* slot
    for priority in range(snapshot.priority_count):
        if detector.enforcing[SUCCESS_RATE]:
            judge_success_rates_grpc(snapshot, detector, priority, now)
        if detector.enforcing[FAILURE_PERCENTAGE]:
            judge_failure_percentages_grpc(snapshot, detector, priority, now)
    for i in range(snapshot.count):
        slot = snapshot.slots[i]
        slot.outlier.success_rate = rate_grpc(slot, slot.outlier.priority, 1)
        memset(&slot.outlier.external, 0, sizeof(OutcomeCounts))
        if not slot.flags & EJECTED:
            slot.outlier.backoff -= slot.outlier.backoff > 0
        elif now > slot.outlier.ejected_at and <uint64_t>(now - slot.outlier.ejected_at) > ejected_for(slot):
            let_return(slot, now, False)


cdef inline double rate_grpc(const Slot* slot, uint32_t priority, uint64_t volume) noexcept nogil:
    """Percent of successes of an endpoint of the priority with requests enough, else -1."""
    cdef const OutcomeCounts* counts = &slot.outlier.external
    if slot.outlier.priority != priority or counts.total == 0 or counts.total < volume:
        return -1.0
    return counts.successes * 100.0 / counts.total


cdef void judge_success_rates_grpc(Snapshot snapshot, OutlierDetector* detector, uint32_t priority, int64_t now) noexcept:
    cdef RateFigures figures = RateFigures(average=-1.0, threshold=-1.0)
    cdef uint32_t i, judged = 0
    cdef double rate, total = 0.0, variance = 0.0
    for i in range(snapshot.count):
        rate = rate_grpc(snapshot.slots[i], priority, detector.success_rate_request_volume)
        if rate >= 0.0:
            judged += 1
            total += rate
    if judged and judged >= detector.success_rate_minimum_hosts:
        figures.average = total / judged
        for i in range(snapshot.count):
            rate = rate_grpc(snapshot.slots[i], priority, detector.success_rate_request_volume)
            if rate >= 0.0:
                variance += (rate - figures.average) * (rate - figures.average)
        figures.threshold = figures.average - detector.success_rate_stdev_factor / 1000.0 * sqrt(variance / judged)
        detector.judged_by = figures
        for i in range(snapshot.count):
            rate = rate_grpc(snapshot.slots[i], priority, detector.success_rate_request_volume)
            if 0.0 <= rate < figures.threshold and not snapshot.slots[i].flags & EJECTED:
                outlier_detected(snapshot.slots[i], SUCCESS_RATE, &now)
    if priority == 0:
        detector.rates[0] = figures     # the one that is shown


cdef void judge_failure_percentages_grpc(
    Snapshot snapshot, OutlierDetector* detector, uint32_t priority, int64_t now
) noexcept:
    cdef double threshold = detector.failure_percentage_threshold
    cdef uint32_t i, judged = 0
    cdef double rate
    for i in range(snapshot.count):
        judged += rate_grpc(snapshot.slots[i], priority, detector.failure_percentage_request_volume) >= 0.0
    if judged == 0 or judged < detector.failure_percentage_minimum_hosts:
        return
    for i in range(snapshot.count):
        rate = rate_grpc(snapshot.slots[i], priority, detector.failure_percentage_request_volume)
        if rate >= 0.0 and 100.0 - rate > threshold and not snapshot.slots[i].flags & EJECTED:
            outlier_detected(snapshot.slots[i], FAILURE_PERCENTAGE, &now)


cdef bint has_room_grpc(Snapshot snapshot, const Slot* slot) noexcept nogil:
    """Whether less than the percentage of its priority is out, the one to be ejected not counted."""
    cdef uint32_t i, members = 0, ejected = 0
    for i in range(snapshot.count):
        if snapshot.slots[i].outlier.priority == slot.outlier.priority:
            members += 1
            ejected += (snapshot.slots[i].flags & EJECTED) != 0
    return 100.0 * ejected / members < slot.totals.detector.max_ejection_percent
