# What changes for Adaptive (adaptive.pxi) with time and with all endpoints together, once in a millisecond or more: how far they
# differ beyond chance, each one's ratio and score, how fast what was learned fades; and what of it all is told.


cdef void adaptive_refresh(Fleet* base, int64_t now) noexcept:
    """What changes with time and with the others: all ratios and scores."""
    cdef AdaptiveFleet* fleet = <AdaptiveFleet*>base
    cdef Scoreboard* board = base.board
    cdef double kept = exp(-<double>max(<int64_t>0, now - fleet.refreshed_at) / fleet.patience)
    cdef uint32_t place
    cdef Slot* slot
    adaptive_compare(fleet, now)
    fleet.quickest = 1.0
    for place in range(BLOCK, board.blocks * BLOCK):
        slot = board.slots[place]
        if slot == NULL:
            continue
        adaptive_judge(fleet, slot, now)
        fleet.quickest = min(fleet.quickest, slot.ratio)
        adaptive_forget_report(fleet, slot, kept)
        scoreboard_write(board, place, adaptive_load(fleet, slot, slot.active))
    fleet.refreshed_at = now
    base.due = now + max(SHORTEST_REFRESH, min(LONGEST_REFRESH, <int64_t>fleet.mean))
    base.due = max(base.due, now + REFRESH_EACH * board.blocks * BLOCK)


cdef void adaptive_compare(AdaptiveFleet* fleet, int64_t now) noexcept:
    """Lets what is known fade where nobody looks; the fleet's mean, and how far its endpoints differ beyond chance."""
    cdef Scoreboard* board = fleet.base.board
    cdef Slot* slot
    cdef uint32_t place
    cdef uint32_t known = 0
    cdef double total = 0.0
    cdef double between = 0.0
    cdef double deviation, kept
    cdef uint64_t lately = ROUNDS * <uint64_t>max(fleet.answering, <int64_t>1)
    fleet.reporting = 0
    fleet.reported = fleet.shares = 0.0
    fleet.answering = fleet.failed_last = 0
    adaptive_usual_failures(fleet)
    for place in range(BLOCK, board.blocks * BLOCK):
        slot = board.slots[place]
        if slot == NULL:
            continue
        if slot.reported >= 0.0:
            fleet.reporting += 1
            fleet.reported += slot.reported
        if slot.active == 0:
            adaptive_forget_failures(fleet, slot, now)
        if slot.failed_last and fleet.sends - slot.failed_after > lately:
            slot.failed_last = False    # says nothing any more of how the others fare now
        fleet.answering += slot.answers > 0.0
        fleet.failed_last += slot.failed_last
        fleet.shares += slot.failing
        if slot.samples:
            kept = adaptive_kept(fleet, slot, now) if slot.active == 0 else 1.0
            slot.faded_samples = slot.samples * kept
            slot.faded_estimate = fleet.mean + (slot.estimate - fleet.mean) * kept
            known += 1
            total += 1.0 / slot.faded_estimate
    if known == 0:
        return
    adaptive_pace(fleet, known, now)
    fleet.mean = known / total
    for place in range(BLOCK, board.blocks * BLOCK):
        slot = board.slots[place]
        if slot != NULL and slot.samples:
            deviation = slot.faded_estimate / fleet.mean - 1.0
            between += deviation * deviation - fleet.variance / max(slot.faded_samples, 1.0)
    fleet.doubt = fleet.variance * known / between if between > 0.0 else LB_TALLEST


cdef inline void adaptive_pace(AdaptiveFleet* fleet, uint32_t known, int64_t now) noexcept:
    """How long it takes this client to learn of each endpoint as much as it remembers: of those that it uses, and not of
    one by itself, or whoever is avoided would be avoided for ever. A pause of traffic hardly counts."""
    cdef double sent = <double>(fleet.sends - fleet.paced_sends)
    cdef double interval
    if fleet.paced_at and sent > 0.0:
        interval = max(<double>(now - fleet.paced_at), 0.0) / sent
        if fleet.pace > 0.0:
            interval = min(interval, LONGEST_PAUSE * fleet.pace)
        fleet.pace += (interval - fleet.pace) * min(1.0, sent / min(fleet.sends, <uint64_t>FLEET_MEMORY))
        fleet.patience = max(fleet.recovery_time, fleet.lasting * known * fleet.pace)
    if sent > 0.0 or not fleet.paced_at:
        fleet.paced_sends = fleet.sends
        fleet.paced_at = now


cdef inline void adaptive_judge(AdaptiveFleet* fleet, Slot* slot, int64_t now) noexcept:
    """The endpoint's ratio, and what multiplies its queue."""
    cdef double weight = <double>slot.weight
    cdef double ratio = 1.0
    cdef double deviation, chance, credible, waited, fluctuation, known
    if slot.samples:
        deviation = slot.faded_estimate / fleet.mean - 1.0
        known = min(slot.faded_samples, JUDGED_BY)
        chance = DEVIATIONS * DEVIATIONS * fleet.variance / known
        credible = known / (known + fleet.doubt)
        if deviation * deviation > chance:
            credible = max(credible, 1.0 - chance / (deviation * deviation))
        ratio += credible * deviation
        if slot.faded_samples * fleet.lasting < slot.samples:
            ratio = 1.0     # too long ago
        ratio = exp(rint(log(max(ratio, SMALLEST_RATIO)) / RATIO_STEP) * RATIO_STEP)
        # Answers agree a little by chance already, because they are compared with one mean of `memory` samples.
        fluctuation = fleet.fluctuation + LEAST_FLUCTUATION
        if fleet.agreement > 2.0 / fleet.memory * fluctuation and now - slot.estimated_at < fleet.patience:
            ratio *= max(SMALLEST_RATIO, 1.0 + min(1.0, fleet.agreement / fluctuation - 2.0 / fleet.memory) * (
                slot.lately * slot.faded_samples / slot.samples
            ))
    if slot.active and fleet.mean > 0.0:
        # Waiting in vain is a sample too, once it is longer than any single sample could count for.
        waited = <double>(now - slot.waiting_since) / (1.0 + slot.active / fleet.workers)
        ratio = max(ratio, waited / (fleet.mean * fleet.sample_limit))
    slot.ratio = ratio * (1.0 + fleet.error_penalty * adaptive_excess(fleet, slot, now))
    if fleet.ramp.window:
        weight *= slow_start_factor(&fleet.ramp, slot, now)
    slot.factor = slot.ratio / weight


cdef object adaptive_learned(const Fleet* base, const Slot* slot):
    cdef const AdaptiveFleet* fleet = <const AdaptiveFleet*>base
    if slot == NULL:
        return (
            fleet.mean / 1e9 if fleet.mean else None, fleet.workers, fleet.doubt if fleet.doubt < LB_TALLEST else None,
            fleet.patience / 1e9, fleet.failing,
        )
    return (
        slot.estimate / 1e9 if slot.samples else None, slot.ratio, slot.faded_samples if slot.samples else 0.0,
        adaptive_queue(fleet, slot, slot.active), slot.reported if slot.reported >= 0.0 else None,
        adaptive_excess(fleet, slot, fleet.refreshed_at),
    )


cdef inline void adaptive_forget_report(AdaptiveFleet* fleet, Slot* slot, double kept) noexcept:
    """A queue longer than the others', and nobody has looked since it was reported: it becomes theirs with time."""
    cdef double others = 0.0
    if slot.active:
        return
    if fleet.reporting > 1:
        others = (fleet.reported - slot.reported) / (fleet.reporting - 1)
    if slot.reported > others:
        slot.reported = others + (slot.reported - others) * kept
        if slot.reported < others + 0.5:
            slot.reported = others      # less than half a request is none
