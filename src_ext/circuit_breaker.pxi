# Circuit breakers: how much may be under way at once. Requests are counted by leases and limited where they are acquired
# (balancer.pxi); what the core does not see happen (retries, waiting, connections) is counted by permits that callers take.
# Reference: Envoy ResourceManagerImpl (source/common/upstream/resource_manager_impl.h).


cdef int32_t choose_within_limits(Balancer balancer, uint64_t hash, object exclude) except -2:
    """A member that may take one request more, or NO_MEMBER; raises where a limit is all that is in the way."""
    cdef Totals* totals = balancer.totals
    cdef Snapshot snapshot
    cdef int32_t member
    if totals.active >= totals.max_requests:
        totals.refused += 1
        raise balancer._overloaded("max_requests", totals.max_requests)
    member = choose_member(balancer, hash) if exclude is None else choose_excluding(balancer, hash, exclude)
    if member < 0 or balancer.slots[member].active < totals.max_per_host:
        return member
    # Envoy fails the request here; others that have room serve it just as well.
    snapshot = <Snapshot>balancer.snapshot
    passed_over = set() if exclude is None else members_of(snapshot, excluded_addresses(exclude))
    members = rank_members(balancer, hash, 1, passed_over | members_without_room(snapshot, totals.max_per_host))
    if members:
        return <int32_t>members[0]
    totals.refused += 1
    raise balancer._overloaded("per_host_thresholds.max_connections", totals.max_per_host)


cdef set members_without_room(Snapshot snapshot, int64_t max_per_host):
    cdef uint32_t i
    members = set()
    for i in range(snapshot.count):
        if snapshot.slots[i].active >= max_per_host:
            members.add(<int32_t>i)
    return members


@cython.final
@cython.no_gc
cdef class Permit:
    """One retry, waiting request or connection, counted until `release`, the end of a `with` block, or collection."""

    cdef CircuitBreaker breaker

    def __init__(self):
        raise TypeError("a Permit comes from a Cluster, such as Cluster.retry_permit()")

    def __dealloc__(self):
        permit_release(self)

    def release(self):
        """Gives it back; later calls do nothing."""
        permit_release(self)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        permit_release(self)
        return False


cdef void permit_release(Permit permit) noexcept:
    if permit.breaker is not None:
        permit.breaker.active -= 1
        permit.breaker = None


@cython.internal
@cython.final
cdef class CircuitBreaker:
    """Counts permits, up to a limit: a fixed one, or a share of the requests that are in flight or wait."""

    cdef Totals* totals             # of the requests that a budget is a share of; NULL: the limit is fixed
    cdef CircuitBreaker waiting     # counted with them
    cdef readonly str name          # of the setting that limits it
    cdef int64_t maximum            # or the least that a budget allows
    cdef double budget              # percent
    cdef int64_t active
    cdef uint64_t refused

    def __dealloc__(self):
        if self.totals != NULL:
            totals_release(self.totals)

    cdef int64_t limit(self) noexcept:
        if self.totals == NULL:
            return self.maximum
        return max(self.maximum, <int64_t>(self.budget * (self.totals.active + self.waiting.active) / 100.0))

    def take(self):
        """A Permit; None where the limit is reached."""
        cdef Permit permit
        if self.active >= self.limit():
            self.refused += 1
            return None
        permit = Permit.__new__(Permit)
        permit.breaker = self
        self.active += 1
        return permit

    def values(self):
        """Limit, active, refused."""
        return self.limit(), self.active, self.refused


cdef CircuitBreaker circuit_breaker(str name, int64_t maximum):
    cdef CircuitBreaker breaker = CircuitBreaker.__new__(CircuitBreaker)
    breaker.name = name
    breaker.maximum = maximum
    return breaker


cdef CircuitBreaker retry_budget(Totals* totals, CircuitBreaker waiting, double budget, int64_t least):
    cdef CircuitBreaker breaker = circuit_breaker("retry_budget", least)
    breaker.totals = totals
    totals.refs += 1
    breaker.waiting = waiting
    breaker.budget = budget
    return breaker


cdef tuple circuit_breakers_set(Totals* totals, object settings):
    """Sets the limits of requests; returns the breakers of waiting requests, retries and connections."""
    cdef CircuitBreaker waiting, retries
    if settings is None:
        return circuit_breaker("", INT64_LARGEST), circuit_breaker("", INT64_LARGEST), circuit_breaker("", INT64_LARGEST)
    waiting = circuit_breaker("max_pending_requests", settings.max_pending_requests)
    budget = settings.retry_budget
    if budget is None:
        retries = circuit_breaker("max_retries", settings.max_retries)
    else:
        retries = retry_budget(totals, waiting, budget.budget_percent, budget.min_retry_concurrency)
    totals.max_requests = totals.free_until = settings.max_requests
    if settings.per_host_thresholds is not None:
        totals.max_per_host = settings.per_host_thresholds.max_connections
        totals.free_until = 0   # every acquire looks
    return waiting, retries, circuit_breaker("max_connections", settings.max_connections)
