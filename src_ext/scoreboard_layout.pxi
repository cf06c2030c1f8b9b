# Where each endpoint stands on the scoreboard: parts of one priority, availability and locality in blocks of their own, so
# that what any of the cluster's selectors picks among is a range of blocks. Built with a snapshot, adopted with it.


cdef int lay_out_scoreboard(Snapshot snapshot, list priorities) except -1:
    """A new board for all members; `priorities` are dicts of localities to members, in order."""
    cdef uint32_t availability, place
    cdef uint32_t block = 1     # block 0 is NOWHERE
    cdef list parts = []
    for places in priorities:
        for availability in range(3):
            for members in (<dict>places).values():
                part = [member for member in members if snapshot.availability[<uint32_t>member] == availability]
                parts.append((block, part))
                block += <uint32_t>(len(part) + BLOCK - 1) // BLOCK
    snapshot.board = scoreboard_new(block)
    if snapshot.board == NULL:
        raise MemoryError("no memory for a scoreboard")
    for first, part in parts:
        place = first * BLOCK
        for member in part:
            snapshot.places[<uint32_t>member] = place
            snapshot.board.slots[place] = snapshot.slots[<uint32_t>member]
            place += 1
    return 0


cdef void borrow_scoreboard(Snapshot snapshot, Scoreboard* board) noexcept:
    """For a view: its endpoints stand where the cluster has put them."""
    cdef uint32_t i
    snapshot.board = board
    board.refs += 1
    for i in range(snapshot.count):
        snapshot.places[i] = snapshot.slots[i].place


cdef void adopt_scoreboard(Fleet* fleet, Snapshot snapshot, int64_t now) noexcept:
    """Makes a new board the fleet's, once nothing can go wrong any more."""
    cdef Scoreboard* before = fleet.board
    cdef uint32_t i
    cdef Slot* slot
    if before != NULL:
        for i in range(before.blocks * BLOCK):
            if before.slots[i] != NULL:
                before.slots[i].place = NOWHERE
    for i in range(snapshot.count):
        slot = snapshot.slots[i]
        slot.place = snapshot.places[i]
        slot.weight = snapshot.weights[i]
        if slot.introduced == 0:
            fleet.introduce(fleet, slot, snapshot.count)
    fleet.board = snapshot.board
    fleet.board.refs += 1
    scoreboard_release(before)
    fleet.refresh(fleet, now)
