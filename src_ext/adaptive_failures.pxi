# Who fails fast looks quick, and would draw all traffic. Adaptive (adaptive.pxi) therefore takes an endpoint for the slower
# the more of its last answers failed than did elsewhere at the same time:
#
# - With each answer is noted what was usual when it came: the share of the other endpoints whose own last answer was a
#   failure. It takes one answer of each to see an outage of the whole fleet, or its end; so an outage is held against nobody,
#   and all have their shares again as soon as they answer. What fails everywhere all the time is told by the fleet's own share.
# - The rest counts as far as it is not by chance: beyond DEVIATIONS standard errors of so many answers.
#
# Latencies are learned of successes alone: a failure says nothing of how long a request takes. What is known of an endpoint that
# is not used fades as its latency does, and is forgotten when less than one part in `lasting` is left.


cdef inline void adaptive_count(AdaptiveFleet* fleet, Slot* slot, bint ok, int64_t now) noexcept:
    """An answer, be it a failure or not."""
    fleet.answers += 1
    if lb_likely(ok and fleet.failed_last == 0 and slot.failing <= 0.0 and slot.others_failing <= 0.0):
        if slot.answers < fleet.memory:
            adaptive_count_one(fleet, slot)
    else:
        adaptive_count_failing(fleet, slot, ok, now)
    slot.answered_at = now


cdef inline void adaptive_count_one(AdaptiveFleet* fleet, Slot* slot) noexcept:
    fleet.answering += slot.answers == 0.0
    slot.answers = min(slot.answers + 1.0, fleet.memory)


cdef void adaptive_count_failing(AdaptiveFleet* fleet, Slot* slot, bint ok, int64_t now) noexcept:
    """Where the endpoint or others fail."""
    cdef double others = adaptive_others_failing(fleet, slot)
    cdef double failed = 0.0 if ok else 1.0
    cdef double before = slot.failing
    cdef double kept = adaptive_failing_kept(fleet, slot, now)
    slot.answers *= kept
    slot.failing = slot.others_failing + (slot.failing - slot.others_failing) * kept
    adaptive_count_one(fleet, slot)
    slot.failing += (failed - slot.failing) / slot.answers
    slot.others_failing += (others - slot.others_failing) / slot.answers
    if slot.failing < LEAST_FAILING and slot.others_failing < LEAST_FAILING:
        slot.failing = slot.others_failing = 0.0
    fleet.shares += slot.failing - before
    fleet.failures += not ok
    fleet.failed_last += (not ok) - <int>slot.failed_last
    slot.failed_last = not ok
    if not ok:
        slot.failed_after = fleet.sends


cdef inline double adaptive_others_failing(const AdaptiveFleet* fleet, const Slot* slot) noexcept nogil:
    """The share of the others whose last answer was a failure."""
    cdef int64_t others = <int64_t>fleet.answering - (slot.answers > 0.0)
    if others <= 0:
        return 0.0
    return max(0.0, min(1.0, <double>(fleet.failed_last - <int>slot.failed_last) / others))


cdef inline double adaptive_others_share(const AdaptiveFleet* fleet, const Slot* slot) noexcept nogil:
    """The mean of the others' shares of failures."""
    cdef int64_t others = fleet.answering - (slot.answers > 0.0)
    return max(0.0, (fleet.shares - slot.failing) / others) if others > 0 else 0.0


cdef inline double adaptive_failing_kept(const AdaptiveFleet* fleet, const Slot* slot, int64_t now) noexcept nogil:
    """Of what is known of the failures of an endpoint that has not been used since."""
    if now <= slot.answered_at:
        return 1.0
    return exp(-<double>(now - slot.answered_at) / max(fleet.patience, PROBATION * slot.estimate))


cdef inline void adaptive_usual_failures(AdaptiveFleet* fleet) noexcept:
    """The share of all answers that fail, over the last FLEET_MEMORY or so."""
    if fleet.answers:
        fleet.failing += (<double>fleet.failures / fleet.answers - fleet.failing) * min(
            1.0, <double>fleet.answers / FLEET_MEMORY
        )
    fleet.answers = fleet.failures = 0


cdef inline void adaptive_forget_failures(AdaptiveFleet* fleet, Slot* slot, int64_t now) noexcept:
    """Of an endpoint that nobody uses: too long ago to say anything."""
    if (slot.failed_last or slot.failing > 0.0) and adaptive_failing_kept(fleet, slot, now) * fleet.lasting < 1.0:
        slot.answers = slot.failing = slot.others_failing = 0.0
        slot.failed_last = False


cdef inline double adaptive_excess(const AdaptiveFleet* fleet, const Slot* slot, int64_t now) noexcept nogil:
    """How much more often it fails than others do, as far as that is not by chance; 0 to 1."""
    cdef double usual = slot.others_failing
    cdef double kept, excess, chance
    if lb_likely(slot.failing <= usual):
        return 0.0
    # Of all answers, one that fails fast gives most: what it fails is usual only as far as the others fail so too.
    usual = max(usual, min(fleet.failing, adaptive_others_share(fleet, slot)))
    if slot.failing <= usual:
        return 0.0
    kept = adaptive_failing_kept(fleet, slot, now) if slot.active == 0 else 1.0
    excess = (slot.failing - usual) * kept
    chance = DEVIATIONS * DEVIATIONS * fleet.failing * (1.0 - fleet.failing) / (slot.answers * kept)
    return max(0.0, excess - chance / excess)
