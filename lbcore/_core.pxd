# The native face of lbcore: what other Cython modules may `cimport`. See docs/embedding.md for an example.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

# What a server says of its own load beside an answer (ORCA, and requests in flight): a `LoadReport` as the core reads it.
cdef struct Load:
    int64_t in_flight               # the server's when it answered; -1 where it does not say
    double utilization              # the application's own, else of the CPU; 0 where it does not say
    double requests_per_second
    double errors_per_second

# How one request ended: what health and load-aware policies learn from.
cdef struct Outcome:
    bint ok
    int status                      # HTTP; 0 where none was given: a failure without one is of local origin
    int64_t now                     # ns of the cluster's clock; 0 where nobody of the cluster asks for the time
    int64_t latency                 # ns; -1 where neither given nor measured
    int64_t met                     # requests that its endpoint was thought to hold when it was sent; -1: not known
    const Load* load                # NULL without a report

cdef struct Slot

# Compiled policy and settings: private to the core.
cdef struct Selector
cdef struct ClusterSettings

# Told of every request that has ended, under the GIL, while the request still counts as in flight. `observe_load` also
# hears of requests that nobody ended (leases dropped): the outcome is then NULL.
ctypedef void (*ObserveFunction)(Slot*, const Outcome*) noexcept

# What a load-aware policy has learned of all endpoints together, and does when a request is sent: private to the core.
cdef struct Fleet

# Outlier detection's settings and counts: private to the core.
cdef struct OutlierDetector

# How each of those who pick from the same slots learns that its snapshot is out of date.
cdef struct PickerLink:
    PickerLink* next
    PickerLink* previous
    Selector** direct               # of the Balancer that it is part of
    Selector** clocked
    uint32_t changes                # of health or membership that it has been told of
    uint32_t stale                  # the last of them, until it is renewed, before its next use; else 0

# All requests of one cluster and its views. Counts are read and written under the GIL.
cdef struct Totals:
    int64_t active
    int64_t free_until              # requests in flight from which an acquire looks at its limits
    int64_t refs
    ObserveFunction observe_load    # the policy's; NULL where it learns nothing
    ObserveFunction observe_health  # outlier detection's; NULL without
    Fleet* fleet                    # owned; NULL where the policy learns nothing
    OutlierDetector* detector       # owned; NULL without
    PickerLink* pickers             # the cluster and its views, in a list
    int64_t max_requests            # circuit breakers; as large as can be without
    int64_t max_per_host
    uint64_t refused                # requests, by these two

# How requests ended in one interval.
cdef struct OutcomeCounts:
    uint64_t total
    uint64_t successes

# What outlier detection keeps of one endpoint (src_ext/outlier.pxi).
cdef struct OutlierState:
    uint32_t consecutive_5xx
    uint32_t consecutive_gateway_failure
    uint32_t consecutive_local_origin_failure
    uint32_t backoff                # times the base ejection time; falls again while the endpoint does well
    OutcomeCounts external          # answers, in the current interval
    OutcomeCounts local             # connections made or failed; counted apart only where errors are split
    int64_t ejected_at              # ns of the cluster's clock
    int64_t returned_at             # ns; 0 before the first return
    int64_t jitter                  # ns, of the latest ejection
    uint32_t times_ejected
    int cause                       # of the latest ejection
    uint32_t priority
    bint said_out                   # by discovery
    double success_rate             # percent, in the last interval; -1 with too few requests
    double local_success_rate

# What lbcore keeps of one endpoint between updates. The first cache line is what picking and finishing touch.
cdef struct Slot:
    int64_t active                  # requests in flight
    uint64_t requests               # begun
    uint64_t successes
    uint64_t failures
    Totals* totals
    int32_t refs                    # owners: the cluster, snapshots, leases
    uint32_t flags
    double estimate                 # what a load-aware policy has learned: ns of a request (PeakEwma)
    int64_t estimated_at            # ns of the cluster's clock: the last sample; 0 before the first
    # the second line
    int64_t available_since         # ns of the cluster's clock: joined, or passed its active check again
    double latency_total            # seconds, over latency_count requests
    uint64_t latency_count
    OutlierState outlier
    # of load-aware policies, the others of what picking and finishing touch
    uint32_t place                  # on the fleet's scoreboard
    uint32_t weight                 # the endpoint's
    double factor                   # of its score: ratio / weight
    double reported                 # requests it has, by its last report and what was sent since; -1: never reported
    int64_t reported_at             # ns
    int64_t waiting_since           # ns: the last answer, or the first request that there is no answer to
    double samples                  # that the estimate rests on; fewer as they age
    double faded_samples            # the same, and the estimate, as of the fleet's last refresh
    double faded_estimate
    double mean_latency             # ns
    double mean_length              # by which the queues that they met lengthened them
    double lately                   # what the last answers say beyond the mean, relative to it
    double failing                  # share of its answers that failed, when it last answered
    double others_failing           # the same of the others at these times (Adaptive)
    double answers                  # that these two rest on; fewer as they age
    bint failed_last                # its last answer was a failure, not long ago
    uint64_t failed_after           # sends of the fleet, when it failed last
    int64_t answered_at             # ns
    double mean_share               # of its latencies, that the queues which they met explain
    double ratio                    # its latencies without their queues, to the fleet's
    uint32_t probe                  # its place in the fleet's pool, from 1 (Prequal); whose that is now, the pool knows
    uint64_t introduced             # sends of the fleet, from which on it is taken to be idle if it does not report

# What one pick takes from outside: random state and, where an endpoint is in slow start or the policy asks, the time.
cdef struct Draw:
    uint64_t random
    int64_t now                     # ns
    int64_t met                     # what the endpoint was thought to hold that the last request was sent to; -1: unknown
    uint32_t cursor                 # of a schedule, in a batch that has reserved its part of it

cdef enum KeyHashing:
    NO_KEYS
    XXH64_KEYS
    MD5_KEYS                        # libketama's


cdef class Balancer


cdef class Lease:
    cdef Slot* slot                 # NULL once done
    cdef readonly object endpoint
    cdef Balancer balancer          # None where nobody asks for latencies
    cdef int64_t started            # ns of the balancer's clock; -1 where nobody asks for latencies
    cdef int64_t met                # as of Outcome


# Time that stands still until it is told to go on: a clock for simulations and tests, read without a Python call.
cdef class VirtualClock:
    cdef public int64_t now         # ns


cdef class Balancer:
    cdef Selector* direct           # where every pick goes, or NULL: through the stages, or by the clock
    cdef Selector* clocked          # the same where picks need only the time, and it can be read natively
    cdef void** objects             # the snapshot's endpoints, borrowed
    cdef Slot** slots               # the snapshot's, borrowed
    cdef Draw draw
    cdef bint timed                 # somebody learns from latencies: leases read the clock
    cdef int hashing                # whether a key decides, and how it is hashed: KeyHashing
    cdef PickerLink link
    cdef Totals* totals
    cdef Fleet* fleet               # what the policy learns, a view's too; NULL where it learns nothing
    cdef bint is_view               # of another balancer's slots
    cdef ClusterSettings* settings
    cdef tuple utilization_metrics  # names in load reports, for the policy that asks; else None
    cdef object snapshot
    cdef dict owners                # the slots by address
    cdef dict departed              # of addresses that have left with requests in flight
    cdef object clock               # None: CLOCK_MONOTONIC
    cdef dict locality_weights
    cdef dict callers
    cdef object local_locality
    cdef tuple breakers             # of waiting requests, retries, connections

    # Position in `endpoints` of the endpoint for a hash (see choose_any without one). Raises NoEndpointAvailable.
    cdef int32_t choose(self, uint64_t hash) except -1
    cdef int32_t choose_any(self) except -1
    # The same on a handle, whose thread alone may call it. -1 where the cluster has changed, or a pick goes through
    # priorities or localities: take the GIL and call `choose`. Positions are in the handle's `endpoints`.
    cdef int32_t choose_without_gil(self, uint64_t hash) noexcept nogil
    # Counts a request as in flight at an endpoint chosen just now; the caller ends it with `end`, exactly once. What the
    # endpoint was thought to hold is then in `draw.met`, for the outcome.
    cdef Slot* begin(self, int32_t member) noexcept
    cdef void end(self, Slot* slot, bint ok) noexcept
    # The same, with all that is known of how it ended.
    cdef void end_with(self, Slot* slot, const Outcome* outcome) noexcept
