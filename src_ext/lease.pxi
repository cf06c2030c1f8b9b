# A request in flight: counted from acquire to done, exactly once, whether done is called, the `with` block ends, or the
# lease is merely dropped. Leases come from a free list, and none is ever part of a reference cycle.

cdef dict HTTP_STATUS_OF_GRPC = {
    # Envoy Grpc::Utility::grpcToHttpStatus (source/common/grpc/status.cc)
    "OK": 200, "CANCELLED": 499, "UNKNOWN": 500, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504, "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429, "FAILED_PRECONDITION": 400,
    "ABORTED": 409, "OUT_OF_RANGE": 400, "UNIMPLEMENTED": 501, "INTERNAL": 500, "UNAVAILABLE": 503, "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}


@cython.final
@cython.freelist(256)
@cython.no_gc
cdef class Lease:
    """One request in flight, from `Cluster.acquire`; `endpoint` is where it goes.

    Call `done` when it has ended, or use it as a context manager, which gives the endpoint and takes an exception for a
    failure. A lease that is dropped without either is released when it is collected, and counts as neither.
    """

    def __init__(self):
        raise TypeError("a Lease comes from Cluster.acquire()")

    def __dealloc__(self):
        cdef Slot* slot = self.slot
        if lb_unlikely(slot != NULL):
            self.slot = NULL
            slot_abandon(slot)

    def done(self, ok=True, *, status=None, latency=None, load=None):
        """Ends the request; later calls do nothing.

        Args:
            ok: whether the endpoint served it.
            status: an HTTP status (100 to 599) or the name of a gRPC code; 500 and above, or a code that maps there,
                counts as a failure whatever `ok` says.
            latency: seconds that it took.
            load: a `LoadReport` that came with the response.

        Raises ValueError or TypeError at a status, latency or load that is none; the request then stays in flight.
        """
        cdef Outcome outcome
        cdef Load report
        if lb_unlikely(self.slot == NULL):
            return
        outcome = Outcome(ok=bool(ok), status=0, now=0, latency=-1, met=self.met, load=NULL)
        if status is not None:
            outcome.status = http_status(status)
            outcome.ok = outcome.ok and outcome.status < 500
        if latency is not None:
            outcome.latency = latency_ns(latency)
        if load is not None:
            load_read(&report, load, None if self.balancer is None else self.balancer.utilization_metrics)
            outcome.load = &report
        lease_finish(self, &outcome)

    def __enter__(self):
        return self.endpoint

    def __exit__(self, kind, error, traceback):
        cdef Outcome outcome
        if lb_likely(self.slot != NULL):
            outcome = Outcome(ok=kind is None, status=0, now=0, latency=-1, met=self.met, load=NULL)
            lease_finish(self, &outcome)
        return False

    def __repr__(self):
        return f"<Lease {self.endpoint.address} {'done' if self.slot == NULL else 'in flight'}>"


cdef inline void lease_end(Lease lease) noexcept:
    cdef Slot* slot = lease.slot
    lease.slot = NULL
    slot_end(slot)


cdef int lease_finish(Lease lease, Outcome* outcome) except -1:
    """Adds the time, where somebody asks for it, and ends the request."""
    cdef Slot* slot
    cdef Balancer balancer = lease.balancer
    if lease.started >= 0 and balancer is not None:     # else reading the load has ended the request
        outcome.now = read_clock(balancer)
        if outcome.latency < 0:
            outcome.latency = max(<int64_t>0, outcome.now - lease.started)
    slot = lease.slot
    if slot == NULL:
        return 0    # the caller's clock has ended the request
    if outcome.latency >= 0:
        slot.latency_total += outcome.latency / 1e9
        slot.latency_count += 1
    lease.slot = NULL
    lease.balancer = None
    slot_finish(slot, outcome)
    return 0


cdef int64_t latency_ns(object latency) except -1:
    cdef double seconds
    if not isinstance(latency, (int, float)) or isinstance(latency, bool):
        raise TypeError(f"latency {latency!r}: expected seconds, as a number")
    seconds = latency
    if not 0.0 <= seconds < 1e9:
        raise ValueError(f"latency {latency!r}: expected seconds, 0.0 or more")
    return <int64_t>(seconds * 1e9)


cdef int load_read(Load* report, object load, tuple metrics) except -1:
    """`metrics`: names of those that say how utilized a server is, before its own word for it (gRFC A114); None: none."""
    try:
        report.in_flight = -1 if load.rif is None else load.rif
        report.utilization = utilization_of(load, metrics) if metrics else 0.0
        if report.utilization <= 0.0:
            report.utilization = load.application_utilization or load.cpu_utilization
        report.requests_per_second = load.rps_fractional
        report.errors_per_second = load.eps
    except AttributeError:
        raise TypeError(f"load {load!r}: expected a LoadReport") from None
    return 0


cdef double utilization_of(object load, tuple metrics) except -1.0:
    """The largest of them, as Envoy's getMaxUtilization has it; 0 without any."""
    cdef double largest = 0.0
    for name in metrics:
        if name.startswith("named_metrics."):
            value = load.named_metrics.get(name[14:], 0.0)
        else:
            value = getattr(load, name)
        if value > largest:
            largest = value
    return largest


cdef int http_status(object status) except -1:
    if isinstance(status, str):
        code = HTTP_STATUS_OF_GRPC.get(status)
        if code is None:
            raise ValueError(f"status {status!r}: expected the name of a gRPC code, such as UNAVAILABLE")
        return code
    if isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 599:
        return status
    raise ValueError(f"status {status!r}: expected an HTTP status, 100 to 599, or the name of a gRPC code")
