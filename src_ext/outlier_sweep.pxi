# What outlier detection does at each interval (Envoy DetectorImpl::onIntervalTimer): endpoints whose ejection is over
# return, the rates of the interval that has ended are judged, and the ejection times of those who do well fall again.
#
# Sweeps fall on a grid of intervals from the cluster's start, so that a caller's timer that comes a little late now and
# then does not lose every other one. Endpoints are judged in the cluster's order; one ejected for its success rate is not
# judged again for its failure percentage.

from libc.math cimport sqrt


cdef inline bint sweep_is_due(const OutlierDetector* detector, int64_t now) noexcept nogil:
    return detector != NULL and now >= detector.next_sweep


cdef void outlier_sweep(Snapshot snapshot, OutlierDetector* detector, int64_t now) noexcept:
    cdef int64_t due = detector.next_sweep + (now - detector.next_sweep) // detector.interval * detector.interval
    cdef uint32_t i
    detector.next_sweep = due + detector.interval
    if detector.as_grpc:
        outlier_sweep_grpc(snapshot, detector, now)
        return
    for i in range(snapshot.count):
        end_of_ejection(snapshot.slots[i], now, due)
    judge_rates(snapshot, detector, now, False)
    judge_rates(snapshot, detector, now, True)
    for i in range(snapshot.count):
        begin_interval(snapshot.slots[i], detector, due)


cdef void end_of_ejection(Slot* slot, int64_t now, int64_t due) noexcept:
    if slot.flags & EJECTED and now >= slot.outlier.ejected_at:
        if <uint64_t>(now - slot.outlier.ejected_at) >= ejected_for(slot):
            let_return(slot, due, False)


cdef void begin_interval(Slot* slot, const OutlierDetector* detector, int64_t due) noexcept:
    """Counts anew, and shortens the next ejection of one that has been back for an interval."""
    cdef OutlierState* state = &slot.outlier
    memset(&state.external, 0, sizeof(OutcomeCounts))
    memset(&state.local, 0, sizeof(OutcomeCounts))
    if state.backoff and not slot.flags & EJECTED and due - state.returned_at >= detector.interval:
        state.backoff -= 1


cdef void judge_rates(Snapshot snapshot, OutlierDetector* detector, int64_t now, bint local) noexcept:
    """Ejects by success rate, then by failure percentage; of answers, or of failures of local origin."""
    cdef uint32_t i, judged = 0, measured = 0
    cdef double rate, threshold
    cdef RateFigures* figures = &detector.rates[local]
    measure_rates(snapshot, detector, local, &judged, &measured)
    figures.average = figures.threshold = -1.0
    if judged and judged >= detector.success_rate_minimum_hosts:
        set_threshold(snapshot, detector, local, judged)
        detector.judged_by = figures[0]
        for i in range(snapshot.count):
            rate = success_rate(snapshot.slots[i], local, detector.success_rate_request_volume)
            if 0.0 <= rate < figures.threshold:
                outlier_detected(snapshot.slots[i], LOCAL_ORIGIN_SUCCESS_RATE if local else SUCCESS_RATE, &now)
    if measured and measured >= detector.failure_percentage_minimum_hosts:
        threshold = detector.failure_percentage_threshold
        for i in range(snapshot.count):
            rate = success_rate(snapshot.slots[i], local, detector.failure_percentage_request_volume)
            if rate >= 0.0 and 100.0 - rate >= threshold:
                outlier_detected(
                    snapshot.slots[i], LOCAL_ORIGIN_FAILURE_PERCENTAGE if local else FAILURE_PERCENTAGE, &now
                )


cdef double success_rate(const Slot* slot, bint local, uint64_t volume) noexcept nogil:
    """Percent in the interval; -1 of an endpoint that is ejected or had fewer requests."""
    cdef const OutcomeCounts* counts = &slot.outlier.local if local else &slot.outlier.external
    if slot.flags & EJECTED or counts.total == 0 or counts.total < volume:
        return -1.0
    return counts.successes * 100.0 / counts.total


cdef void measure_rates(
    Snapshot snapshot, const OutlierDetector* detector, bint local, uint32_t* judged, uint32_t* measured
) noexcept:
    """Notes each endpoint's rate for people to see, and counts those with requests enough for either judgement."""
    cdef uint64_t volume = min(detector.success_rate_request_volume, detector.failure_percentage_request_volume)
    cdef uint32_t i
    cdef double rate
    for i in range(snapshot.count):
        judged[0] += success_rate(snapshot.slots[i], local, detector.success_rate_request_volume) >= 0.0
        measured[0] += success_rate(snapshot.slots[i], local, detector.failure_percentage_request_volume) >= 0.0
        rate = success_rate(snapshot.slots[i], local, volume)
        if local:
            snapshot.slots[i].outlier.local_success_rate = rate
        else:
            snapshot.slots[i].outlier.success_rate = rate


cdef void set_threshold(Snapshot snapshot, OutlierDetector* detector, bint local, uint32_t judged) noexcept:
    """The mean less some standard deviations of the population (Envoy successRateEjectionThreshold)."""
    cdef RateFigures* figures = &detector.rates[local]
    cdef double rate, total = 0.0, variance = 0.0
    cdef uint32_t i
    for i in range(snapshot.count):
        rate = success_rate(snapshot.slots[i], local, detector.success_rate_request_volume)
        if rate >= 0.0:
            total += rate
    figures.average = total / judged
    for i in range(snapshot.count):
        rate = success_rate(snapshot.slots[i], local, detector.success_rate_request_volume)
        if rate >= 0.0:
            variance += (rate - figures.average) * (rate - figures.average)
    figures.threshold = figures.average - detector.success_rate_stdev_factor / 1000.0 * sqrt(variance / judged)
