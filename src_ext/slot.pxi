# What a pick writes. An endpoint's Slot stays at one address for as long as the endpoint's address is in the cluster, or
# requests to it are in flight: an update builds a new snapshot around the same slots, so no count is ever lost.
#
# A slot's first cache line is all that picking and finishing touch (declared in lbcore/_core.pxd). Every count is written
# under the GIL. `refs` counts the owners: the cluster's table, each snapshot and each open lease.

from libc.stdlib cimport free
from libc.string cimport memset

ctypedef int64_t (*SentFunction)(Slot*, int64_t) noexcept
ctypedef void (*RefreshFunction)(Fleet*, int64_t) noexcept
ctypedef void (*ProbedFunction)(Slot*, const Load*, int64_t, int64_t, uint32_t) noexcept
ctypedef void (*IntroduceFunction)(Fleet*, Slot*, uint32_t) noexcept
ctypedef object (*LearnedFunction)(const Fleet*, const Slot*)

# What a load-aware policy has learned of all endpoints together; each policy's struct begins with one.
cdef struct Fleet:
    SentFunction sent       # told of a request counted in; NULL where nobody needs to be
    ProbedFunction probed   # told of a probe: its report, latency (ns or -1), now, endpoints; NULL where nobody needs to be
    RefreshFunction refresh # NULL where nothing changes with time alone
    int64_t due             # ns; when to refresh next
    void (*free)(Fleet*) noexcept nogil
    IntroduceFunction introduce     # told of who has joined, and how many there are; NULL without a scoreboard
    Scoreboard* board       # NULL before the first endpoints
    LearnedFunction learned # the fields of `Learned`, of a slot; of `FleetLearned`, of NULL. NULL where there is nothing to tell
    uint64_t uncounted      # picks since the last request was counted in, where the policy asks
    int64_t active          # requests in flight at the last pick, where the policy asks


cdef Slot* slot_new(Totals* totals, int64_t now) except NULL:
    cdef void* memory = NULL
    if posix_memalign(&memory, 64, sizeof(Slot)) != 0:
        raise MemoryError("no memory for an endpoint's slot")
    memset(memory, 0, sizeof(Slot))
    cdef Slot* slot = <Slot*>memory
    slot.refs = 1
    slot.totals = totals
    slot_reset(slot, now)
    totals.refs += 1
    return slot


cdef inline void slot_reset(Slot* slot, int64_t now) noexcept:
    """Whoever joins, or joins again, starts anew in all but its counts."""
    slot.flags &= DEPARTED      # until it is published as a member
    slot.available_since = now
    slot.estimate = 0.0
    slot.estimated_at = 0
    memset(&slot.outlier, 0, sizeof(OutlierState))
    slot.outlier.success_rate = slot.outlier.local_success_rate = -1.0
    slot.samples = 0.0
    slot.mean_share = 0.0
    slot.mean_latency = 0.0
    slot.mean_length = 0.0
    slot.lately = 0.0
    slot.failing = 0.0
    slot.others_failing = 0.0
    slot.answers = 0.0
    slot.failed_last = False
    slot.failed_after = 0
    slot.answered_at = now
    slot.reported = -1.0
    slot.ratio = 1.0
    slot.factor = 1.0
    slot.waiting_since = now
    slot.introduced = 0
    slot.probe = 0


cdef inline void slot_release(Slot* slot) noexcept:
    slot.refs -= 1
    if lb_unlikely(slot.refs == 0):
        slot_free(slot)


cdef void slot_free(Slot* slot) noexcept:
    totals_release(slot.totals)
    free(slot)


cdef inline Slot* slot_begin(Slot* slot) noexcept:
    """Counts a request in, and one more owner of the slot."""
    slot.active += 1
    slot.requests += 1
    slot.refs += 1
    slot.totals.active += 1
    return slot


cdef inline int64_t slot_sent(Slot* slot, int64_t now) noexcept:
    """Tells a load-aware policy of a request just counted in; returns what the endpoint was thought to hold before it."""
    cdef Fleet* fleet = slot.totals.fleet
    return fleet.sent(slot, now) if fleet != NULL and fleet.sent != NULL else -1


cdef inline void slot_end(Slot* slot) noexcept:
    slot.active -= 1
    slot.totals.active -= 1
    slot_release(slot)


cdef inline void slot_abandon(Slot* slot) noexcept:
    """Ends a request of which nobody says how it ended."""
    if lb_unlikely(slot.totals.observe_load != NULL):
        slot.totals.observe_load(slot, NULL)
    slot_end(slot)


cdef inline bint slot_observed(const Slot* slot) noexcept:
    return slot.totals.observe_load != NULL or slot.totals.observe_health != NULL


cdef inline void slot_finish(Slot* slot, const Outcome* outcome) noexcept:
    """Ends a request, and tells those who learn from it: the one way out of the core for every request that was served."""
    cdef Totals* totals = slot.totals
    if outcome.ok:
        slot.successes += 1
    else:
        slot.failures += 1
    if lb_unlikely(totals.observe_load != NULL):
        totals.observe_load(slot, outcome)
    if lb_unlikely(totals.observe_health != NULL):
        totals.observe_health(slot, outcome)
    slot_end(slot)


cdef inline void fleet_refresh(Fleet* fleet, int64_t now) noexcept:
    """Brings what changes with time up to date, where that is due."""
    if lb_unlikely(now >= fleet.due and fleet.refresh != NULL):
        fleet.refresh(fleet, now)


cdef inline object fleet_learned(const Fleet* fleet, const Slot* slot):
    return fleet.learned(fleet, slot) if fleet != NULL and fleet.learned != NULL else None


cdef void fleet_free(Fleet* fleet) noexcept nogil:
    free(fleet)


cdef Totals* totals_new() except NULL:
    cdef void* memory = NULL
    if posix_memalign(&memory, 64, sizeof(Totals)) != 0:
        raise MemoryError("no memory for a cluster's totals")
    memset(memory, 0, sizeof(Totals))
    (<Totals*>memory).refs = 1
    (<Totals*>memory).max_requests = (<Totals*>memory).max_per_host = INT64_LARGEST
    (<Totals*>memory).free_until = INT64_LARGEST
    return <Totals*>memory


cdef inline void totals_release(Totals* totals) noexcept:
    totals.refs -= 1
    if totals.refs == 0:
        if totals.fleet != NULL:
            totals.fleet.free(totals.fleet)
        outlier_detector_free(totals.detector)
        free(totals)


@cython.internal
@cython.final
cdef class SlotOwner:
    """Holds the cluster's reference to a slot, in its table by address."""

    cdef Slot* slot

    def __dealloc__(self):
        if self.slot != NULL:
            slot_release(self.slot)


cdef SlotOwner own_slot(Totals* totals, int64_t now):
    cdef SlotOwner owner = SlotOwner.__new__(SlotOwner)
    owner.slot = slot_new(totals, now)
    return owner
