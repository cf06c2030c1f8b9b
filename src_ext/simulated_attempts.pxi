# A simulation's attempts live in one array that grows; those that have ended are a list, and are used again.


cdef uint32_t new_attempt(Simulation simulation) except? 0:
    cdef uint32_t index = simulation.free_attempt
    cdef uint32_t room, i
    cdef void* grown
    if index == NOBODY:
        room = simulation.attempt_room * 2 if simulation.attempt_room else 256
        grown = realloc(simulation.attempts, room * sizeof(Attempt))
        if grown == NULL:
            raise MemoryError("no memory for a simulation's requests")
        simulation.attempts = <Attempt*>grown
        memset(&simulation.attempts[simulation.attempt_room], 0, (room - simulation.attempt_room) * sizeof(Attempt))
        for i in range(simulation.attempt_room, room):
            simulation.attempts[i].next = i + 1 if i + 1 < room else NOBODY
        index = simulation.attempt_room
        simulation.attempt_room = room
    simulation.free_attempt = simulation.attempts[index].next
    simulation.attempts[index].serial = simulation.records.pick_count
    return index


cdef int free_attempt_again(Simulation simulation, uint32_t index) noexcept:
    simulation.attempts[index].next = simulation.free_attempt
    simulation.free_attempt = index
    return 0
