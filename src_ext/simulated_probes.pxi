# Probes of a simulation's clients, for the policy that picks by them (prequal.pxi): sent beside each attempt to servers drawn
# at random, without waiting for them. They travel as requests do, wait in no queue, and are work for nobody. A probe is an
# attempt that nobody picked and nobody serves; servers that are paused let it drop.

cdef enum: MOST_PROBES = 16          # beside one attempt


cdef inline bint picks_by_probes(Balancer balancer) noexcept:
    return balancer.fleet != NULL and balancer.fleet.probed == prequal_probed


cdef int send_probes(Simulation simulation, uint32_t client) except -1:
    """To distinct servers, as many as the client has at most: Floyd's sample ("A Sample of Brilliance", CACM 1987)."""
    cdef Balancer balancer = <Balancer>simulation.balancers[client]
    cdef SimulatedClient* it = &simulation.clients[client]
    cdef uint32_t count = min(simulation.probes, it.count)
    cdef uint32_t drawn[MOST_PROBES]
    cdef uint32_t i, k, member, index
    if not picks_by_probes(balancer):
        return 0
    for i in range(count):
        member = <uint32_t>lb_multiply_high(random_bits(&simulation.probe_random), it.count - count + i + 1)
        for k in range(i):
            if drawn[k] == member:
                member = it.count - count + i
                break
        drawn[i] = member
        index = new_attempt(simulation)
        simulation.attempts[index].serial = simulation.probes_sent
        simulation.attempts[index].slot = NULL
        simulation.attempts[index].client = client
        simulation.attempts[index].server = it.servers[member]
        simulation.attempts[index].place = member
        simulation.probes_sent += 1
        simulation.happens_after(simulation.network_delay, PROBE_REACHED, index)
    return 0


cdef int answer_probe(Simulation simulation, uint32_t index) except -1:
    cdef Attempt* probe = &simulation.attempts[index]
    cdef SimulatedServer* server = &simulation.servers[probe.server]
    if server.speed <= 0.0:
        free_attempt_again(simulation, index)
        return 0
    probe.load.in_flight = server_in_flight(server)
    probe.latency = answers_estimate(&simulation.recent[probe.server], server_in_flight(server), simulation.clock.now)
    return simulation.happens_after(simulation.network_delay, PROBED, index)


cdef int take_probe(Simulation simulation, uint32_t index) except -1:
    """Exactly what `Cluster.observe` does; a server that the client has no more is passed over."""
    cdef Attempt* probe = &simulation.attempts[index]
    cdef Balancer balancer = <Balancer>simulation.balancers[probe.client]
    cdef SimulatedClient* client = &simulation.clients[probe.client]
    cdef uint32_t count = min(client.count, <uint32_t>len(balancer.owners))
    cdef uint32_t member = probe.place
    if member >= count or client.servers[member] != probe.server:
        # An update has moved it.
        member = 0
        while member < count and client.servers[member] != probe.server:
            member += 1
    if member < count and picks_by_probes(balancer):
        balancer.fleet.probed(balancer.slots[member], &probe.load, probe.latency, simulation.clock.now, count)
    free_attempt_again(simulation, index)
    return 0
