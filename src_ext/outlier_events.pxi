# Ejections and returns, kept for a log until somebody takes them. They happen while requests end, where no Python may run:
# so each is a plain record in memory of its own, and becomes Python when it is taken. Of more than `MOST_EVENTS` that
# nobody has taken, the latest are lost.

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport realloc

cdef enum:
    FIRST_EVENTS = 16
    MOST_EVENTS = 16384

cdef tuple EVENT_NAMES = ("ejected", "spared", "returned", "passed_check")

cdef struct OutlierEvent:
    PyObject* endpoint              # owned
    int64_t at                      # ns of the cluster's clock
    int64_t since                   # ns since it was last ejected, or returned; -1: never
    int kind
    int cause                       # of the ejection that begins, or ends
    uint32_t times_ejected
    double success_rate             # percent, in the interval that was judged; -1 without requests
    double average                  # what it was held against
    double threshold


cdef void note_spared(Slot* slot, int cause, const int64_t* now) noexcept:
    """Of an outlier that the enforcing percentage leaves in."""
    cdef OutlierDetector* detector = slot.totals.detector
    if now != NULL:
        detector.last_time = now[0]
    else:
        read_time(detector)
    note_event(slot, EVENT_SPARED, cause, detector.last_time, slot.outlier.returned_at)


cdef void note_event(Slot* slot, int kind, int cause, int64_t at, int64_t last) noexcept:
    """`last`: when it was last ejected, or returned; 0: never."""
    cdef OutlierDetector* detector = slot.totals.detector
    cdef const OutcomeCounts* counts = &slot.outlier.external
    cdef PyObject* endpoint
    if not detector.keeps_events:
        return
    endpoint = endpoint_of(detector, slot)
    if endpoint == NULL or not has_room_for_event(detector):
        return
    if cause == LOCAL_ORIGIN_SUCCESS_RATE or cause == LOCAL_ORIGIN_FAILURE_PERCENTAGE:
        counts = &slot.outlier.local
    Py_INCREF(<object>endpoint)
    detector.events[detector.event_count] = OutlierEvent(
        endpoint=endpoint, at=at, since=at - last if last else -1, kind=kind, cause=cause,
        times_ejected=slot.outlier.times_ejected,
        success_rate=counts.successes * 100.0 / counts.total if counts.total else -1.0,
        average=detector.judged_by.average, threshold=detector.judged_by.threshold,
    )
    detector.event_count += 1


cdef PyObject* endpoint_of(const OutlierDetector* detector, const Slot* slot) noexcept:
    """Borrowed; NULL where it is no member, or the cluster is gone."""
    cdef Snapshot snapshot
    cdef uint32_t i
    if detector.cluster == NULL or Py_REFCNT(detector.cluster) == 0:
        return NULL
    if (<Balancer>detector.cluster).snapshot is None:
        return NULL
    snapshot = <Snapshot>(<Balancer>detector.cluster).snapshot
    for i in range(snapshot.count):
        if snapshot.slots[i] == slot:
            return <PyObject*>snapshot.endpoints[i]
    return NULL


cdef bint has_room_for_event(OutlierDetector* detector) noexcept:
    cdef uint32_t room
    cdef void* memory
    if detector.event_count < detector.event_room:
        return True
    room = max(<uint32_t>FIRST_EVENTS, 2 * detector.event_room)
    if room > MOST_EVENTS:
        return False
    memory = realloc(detector.events, room * sizeof(OutlierEvent))
    if memory == NULL:
        return False
    detector.events = <OutlierEvent*>memory
    detector.event_room = room
    return True


cdef list outlier_events_taken(OutlierDetector* detector):
    """All that have been noted: kind, endpoint, cause, at, since, times ejected, its success rate, mean, threshold."""
    cdef OutlierEvent* events = detector.events
    cdef uint32_t i, count = detector.event_count
    cdef OutlierEvent* event
    # Whatever runs while these become Python notes its own.
    detector.events = NULL
    detector.event_count = detector.event_room = 0
    taken = []
    try:
        for i in range(count):
            event = &events[i]
            taken.append((
                EVENT_NAMES[event.kind], <object>event.endpoint, CAUSE_NAMES[event.cause], event.at, event.since,
                event.times_ejected, event.success_rate, event.average, event.threshold,
            ))
    finally:
        events_free(events, count)
    return taken


cdef void events_free(OutlierEvent* events, uint32_t count) noexcept:
    cdef uint32_t i
    for i in range(count):
        Py_DECREF(<object>events[i].endpoint)
    free(events)


cdef void outlier_detector_free(OutlierDetector* detector) noexcept:
    if detector != NULL:
        events_free(detector.events, detector.event_count)
        free(detector)
