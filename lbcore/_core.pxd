# The native face of lbcore: what other Cython modules may `cimport`. See docs/embedding.md for an example.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

# All requests of one cluster. Counts are read and written under the GIL.
cdef struct Totals:
    int64_t active
    int64_t refs

# What lbcore keeps of one endpoint between updates. The first cache line is what picking and finishing touch.
cdef struct Slot:
    int64_t active                  # requests in flight
    uint64_t requests               # begun
    uint64_t successes
    uint64_t failures
    Totals* totals
    int64_t available_since         # ns of the cluster's clock: joined, or passed its active check again
    int32_t refs                    # owners: the cluster, snapshots, leases
    uint32_t flags
    uint64_t reports                # load reports received
    double latency_total            # seconds, over latency_count requests
    uint64_t latency_count
    double reported_utilization     # of the last report; 0 without
    int64_t reported_in_flight      # of the last report; -1 without

# What one pick takes from outside: random state and, where an endpoint is in slow start, the time.
cdef struct Draw:
    uint64_t random
    int64_t now                     # ns; set only while an endpoint is in slow start
    uint32_t cursor                 # of a schedule, in a batch that has reserved its part of it

cdef enum KeyHashing:
    NO_KEYS
    XXH64_KEYS
    MD5_KEYS                        # libketama's

# Compiled policy and settings: private to the core.
cdef struct Selector
cdef struct ClusterSettings


cdef class Lease:
    cdef Slot* slot                 # NULL once done
    cdef readonly object endpoint


cdef class Balancer:
    cdef Selector* direct           # where every pick goes, or NULL: through the stages
    cdef void** objects             # the snapshot's endpoints, borrowed
    cdef Slot** slots               # the snapshot's, borrowed
    cdef Draw draw
    cdef int hashing                # whether a key decides, and how it is hashed: KeyHashing
    cdef uint32_t changes           # of the cluster that a view has been told of
    cdef uint32_t stale             # the last of them, until the view is renewed, before its next use; else 0
    cdef Totals* totals
    cdef ClusterSettings* settings
    cdef object snapshot
    cdef dict owners                # the slots by address
    cdef dict departed              # of addresses that have left with requests in flight
    cdef object clock               # None: CLOCK_MONOTONIC
    cdef dict locality_weights
    cdef dict callers
    cdef object local_locality

    # Position in `endpoints` of the endpoint for a hash (see choose_any without one). Raises NoEndpointAvailable.
    cdef int32_t choose(self, uint64_t hash) except -1
    cdef int32_t choose_any(self) except -1
    # The same on a handle, whose thread alone may call it. -1 where the cluster has changed, or a pick goes through
    # priorities or localities: take the GIL and call `choose`. Positions are in the handle's `endpoints`.
    cdef int32_t choose_without_gil(self, uint64_t hash) noexcept nogil
    # Counts a request as in flight at an endpoint chosen just now; the caller ends it with `end`, exactly once.
    cdef Slot* begin(self, int32_t member) noexcept
    cdef void end(self, Slot* slot, bint ok) noexcept
