# What a simulation leaves behind: a line for each request, and one for each time that a client picked.

cdef enum RequestState:
    UNFINISHED
    SUCCEEDED
    FAILED


cdef numpy.ndarray zeros(numpy.npy_intp count, int kind):
    return numpy.PyArray_ZEROS(1, &count, kind, 0)


@cython.final
cdef class Records:
    """All times are nanoseconds since the start.

    Fields, one item a request:
        arrival_times: when it came to a client.
        work: nanoseconds that it takes at speed 1.
        latencies: from then until it was concluded.
        answering: the server of its last attempt; -1: there was none to pick.
        states: 0 unfinished, 1 succeeded, 2 failed.
        tries: attempts.
    """

    cdef readonly numpy.ndarray arrival_times, work, latencies, answering, states, tries
    cdef uint64_t count
    cdef int64_t* arrival_at
    cdef double* work_of
    cdef int64_t* latency_of
    cdef int32_t* server_of
    cdef uint8_t* state_of
    cdef uint8_t* tries_of
    cdef uint64_t pick_count
    cdef uint64_t pick_room
    cdef numpy.ndarray pick_times, pick_servers     # with room for more
    cdef int64_t* picked_at
    cdef int32_t* picked

    def __init__(self, uint64_t requests):
        if self.count or self.pick_room:
            raise RuntimeError("records are made once")
        self.count = requests
        self.arrival_times = zeros(requests, numpy.NPY_INT64)
        self.work = zeros(requests, numpy.NPY_DOUBLE)
        self.latencies = zeros(requests, numpy.NPY_INT64)
        self.answering = zeros(requests, numpy.NPY_INT32)
        self.states = zeros(requests, numpy.NPY_UINT8)
        self.tries = zeros(requests, numpy.NPY_UINT8)
        self.arrival_at = <int64_t*>numpy.PyArray_DATA(self.arrival_times)
        self.work_of = <double*>numpy.PyArray_DATA(self.work)
        self.latency_of = <int64_t*>numpy.PyArray_DATA(self.latencies)
        self.server_of = <int32_t*>numpy.PyArray_DATA(self.answering)
        self.state_of = <uint8_t*>numpy.PyArray_DATA(self.states)
        self.tries_of = <uint8_t*>numpy.PyArray_DATA(self.tries)
        self.make_room(requests + 1)

    @property
    def picks(self):
        """When each attempt began, and the server it went to."""
        return self.pick_times[: self.pick_count], self.pick_servers[: self.pick_count]

    cdef int note_pick(self, int64_t time, uint32_t server) except -1:
        if self.pick_count == self.pick_room:
            self.make_room(self.pick_room * 2)
        self.picked_at[self.pick_count] = time
        self.picked[self.pick_count] = <int32_t>server
        self.pick_count += 1
        return 0

    cdef int make_room(self, uint64_t room) except -1:
        times, servers = zeros(room, numpy.NPY_INT64), zeros(room, numpy.NPY_INT32)
        if self.pick_room:
            times[: self.pick_room] = self.pick_times
            servers[: self.pick_room] = self.pick_servers
        self.pick_times = times
        self.pick_servers = servers
        self.picked_at = <int64_t*>numpy.PyArray_DATA(self.pick_times)
        self.picked = <int32_t*>numpy.PyArray_DATA(self.pick_servers)
        self.pick_room = room
        return 0
