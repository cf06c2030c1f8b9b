# What happens next in a simulation: events in the order of time; at one time in the order of kind, then of serial number,
# so that a run depends on nothing but what it was given. A binary heap.

from libc.stdlib cimport realloc

cdef enum: KIND_BITS = 56            # an event's order holds its kind above its serial number

cdef int64_t NEVER = 0x7FFFFFFFFFFFFFFF

cdef struct Event:
    int64_t time            # ns
    uint64_t order
    uint32_t subject        # what it happens to: an index whose meaning depends on the kind
    uint32_t version        # of the subject, when the event was made

cdef struct EventHeap:
    Event* events
    size_t count
    size_t room


cdef inline int64_t time_after(int64_t now, double delay) noexcept nogil:
    """`delay` ns, 0 or more, from now; what lies beyond the end of time happens just before it."""
    if not delay < <double>(NEVER - 1 - now):
        return NEVER - 1
    return now + <int64_t>(delay + 0.5)


cdef inline bint event_before(const Event* one, const Event* other) noexcept nogil:
    return one.time < other.time or (one.time == other.time and one.order < other.order)


cdef int event_push(
    EventHeap* heap, int64_t time, uint64_t kind, uint64_t serial, uint32_t subject, uint32_t version
) except -1:
    cdef Event event
    cdef size_t place = heap.count
    cdef size_t parent
    if lb_unlikely(place == heap.room):
        event_heap_grow(heap)
    event.time = time
    event.order = (kind << KIND_BITS) | serial
    event.subject = subject
    event.version = version
    while place > 0:
        parent = (place - 1) >> 1
        if not event_before(&event, &heap.events[parent]):
            break
        heap.events[place] = heap.events[parent]
        place = parent
    heap.events[place] = event
    heap.count += 1
    return 0


cdef Event event_pop(EventHeap* heap) noexcept nogil:
    """The first event of a heap that is not empty."""
    cdef Event first = heap.events[0]
    cdef Event last
    cdef size_t place = 0
    cdef size_t child
    heap.count -= 1
    last = heap.events[heap.count]
    while True:
        child = 2 * place + 1
        if child >= heap.count:
            break
        if child + 1 < heap.count and event_before(&heap.events[child + 1], &heap.events[child]):
            child += 1
        if not event_before(&heap.events[child], &last):
            break
        heap.events[place] = heap.events[child]
        place = child
    heap.events[place] = last
    return first


cdef int event_heap_grow(EventHeap* heap) except -1:
    cdef size_t room = heap.room * 2 if heap.room else 256
    cdef void* grown = realloc(heap.events, room * sizeof(Event))
    if grown == NULL:
        raise MemoryError("no memory for a simulation's events")
    heap.events = <Event*>grown
    heap.room = room
    return 0
