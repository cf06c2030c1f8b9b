# Reports that are behind: a server tells its load as it was some time ago. Whenever its load changes, that is noted, and
# seen when the time has passed. A note travels as an attempt that nobody picked.


cdef int note_load(Simulation simulation, uint32_t number) except -1:
    cdef uint32_t index = new_attempt(simulation)
    cdef Attempt* note = &simulation.attempts[index]
    simulation.account(&simulation.servers[number])
    note.serial = simulation.loads_noted
    note.slot = NULL
    note.server = number
    note.load = server_load(&simulation.servers[number])
    simulation.loads_noted += 1
    return simulation.happens_after(simulation.report_delay, LOAD_SEEN, index)


cdef int see_load(Simulation simulation, uint32_t index) except -1:
    simulation.servers[simulation.attempts[index].server].seen = simulation.attempts[index].load
    return free_attempt_again(simulation, index)
