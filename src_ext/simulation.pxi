# A fleet under a virtual clock: clients that pick by real Balancers, or by a baseline that knows everything; requests that
# travel, queue, are served, and travel back. What picks, counts and learns here is what `acquire` and `done` call.
#
# The caller runs the loop from one moment to the next and changes the fleet in between (lbcore/simulation/run.py), so
# that a second of it takes no more than a handful of Python calls.

cdef enum EventKind:                # in this order at one time
    LOAD_SEEN
    SERVED
    ANSWERED
    TIMED_OUT
    REACHED
    PROBE_REACHED
    PROBED

cdef struct SimulatedClient:
    uint32_t* servers               # by member of its cluster
    uint32_t count
    uint32_t active                 # attempts
    uint32_t retrying               # attempts that are retries


cdef int check_count(str what, object number, object least) except -1:
    if not least <= number <= INT32_LARGEST:
        raise ValueError(f"{what} {number}: expected {least} to {INT32_LARGEST}")
    return 0


cdef int check_number(str what, double number, double least) except -1:
    if not least <= number < 1e300:
        raise ValueError(f"{what} {number}: expected {least} or more")
    return 0


@cython.final
cdef class Simulation:
    """The event loop of a simulation; `lbcore.simulation.run` sets it up and reads the outcome.

    All times are nanoseconds since its start.
    """

    cdef readonly VirtualClock clock
    cdef int64_t origin             # of the clock
    cdef EventHeap events
    cdef Arrivals arriving
    cdef ServiceTime service_time
    cdef SimulatedServer* servers
    cdef uint32_t server_count
    cdef uint32_t* served           # of all servers
    cdef SimulatedClient* clients
    cdef uint32_t client_count
    cdef list balancers             # by client
    cdef Attempt* attempts
    cdef uint32_t attempt_room
    cdef uint32_t free_attempt
    cdef int baseline
    cdef int64_t network_delay      # one way
    cdef int64_t measured_from, measured_until
    cdef uint64_t tie_random, fault_random, report_random, probe_random
    cdef bint reporting
    cdef double report_loss         # 0 to 1
    cdef double report_window       # ns
    cdef int64_t report_delay       # ns
    cdef uint64_t loads_noted
    cdef uint32_t retry_limit
    cdef double retry_budget        # 0 to 1, of the client's active requests
    cdef uint32_t retry_concurrency
    cdef int64_t retry_timeout      # of one attempt; 0: none
    cdef uint32_t probes            # beside each attempt of a client that picks by them
    cdef uint64_t probes_sent
    cdef RecentAnswers* recent      # by server; NULL without probes
    cdef uint64_t finished
    cdef readonly Records records

    def __init__(self, VirtualClock clock not None, *, uint64_t seed, requests, workers, clients, baseline, int64_t network_delay):
        cdef uint32_t i
        cdef uint32_t* place
        if self.servers != NULL:
            raise RuntimeError("a simulation is set up once")
        check_count("requests", requests, 1)
        check_count("clients", clients, 1)
        check_count("servers", len(workers), 1)
        check_count("workers", min(workers), 1)
        check_count("workers in all", sum(workers), 1)
        self.clock = clock
        self.origin = clock.now
        self.server_count = len(workers)
        self.client_count = clients
        self.baseline = baseline
        self.network_delay = network_delay
        self.measured_until = NEVER
        self.free_attempt = NOBODY
        self.balancers = [None] * self.client_count
        self.servers = <SimulatedServer*>calloc(self.server_count or 1, sizeof(SimulatedServer))
        self.clients = <SimulatedClient*>calloc(self.client_count or 1, sizeof(SimulatedClient))
        self.served = <uint32_t*>malloc((sum(workers) or 1) * sizeof(uint32_t))
        if self.servers == NULL or self.clients == NULL or self.served == NULL:
            raise MemoryError("no memory for a simulation")
        place = self.served
        for i in range(self.server_count):
            self.servers[i].workers = workers[i]
            self.servers[i].served = place
            self.servers[i].speed = 1.0
            self.servers[i].present = True
            place += self.servers[i].workers
        self.arriving.left = requests
        self.arriving.random = random_stream(seed, 0)
        self.service_time.random = random_stream(seed, 1)
        self.arriving.client_random = random_stream(seed, 2)
        self.arriving.key_random = random_stream(seed, 3)
        self.tie_random = random_stream(seed, 4)
        self.fault_random = random_stream(seed, 5)
        self.report_random = random_stream(seed, 6)
        self.probe_random = random_stream(seed, 7)
        self.records = Records(requests)

    def __dealloc__(self):
        cdef uint32_t i
        if self.attempts != NULL:
            for i in range(self.attempt_room):
                if self.attempts[i].slot != NULL:
                    slot_abandon(self.attempts[i].slot)
        if self.clients != NULL:
            for i in range(self.client_count):
                free(self.clients[i].servers)
        free(self.attempts)
        free(self.clients)
        free(self.servers)
        free(self.served)
        free(self.recent)
        free(self.events.events)

    def set_arrivals(self, double interval, int kind, double mean, double shape, double factor):
        """Before the first run: the mean time between requests, and the distribution of their work."""
        check_number("interval", interval, 1e-3)
        check_number("mean", mean, 0.0)
        check_number("shape", shape, 0.0)
        check_number("factor", factor, 0.0)
        self.service_time.kind = <ServiceTimeKind>kind
        self.service_time.mean = mean
        self.service_time.shape = shape
        self.service_time.factor = factor
        self.arriving.interval = interval
        self.arriving.next = self.clock.now
        arrivals_advance(&self.arriving)

    def set_interval(self, double interval):
        """From now on. The pending arrival moves in proportion, which for a Poisson process is the same as a new draw."""
        cdef double ahead = <double>max(<int64_t>0, self.arriving.next - self.clock.now)
        check_number("interval", interval, 1e-3)
        check_number("interval before", self.arriving.interval, 1e-3)
        self.arriving.next = time_after(self.clock.now, ahead * interval / self.arriving.interval)
        self.arriving.interval = interval

    def set_measured(self, start, end):
        """The time in which utilisation and requests in flight are measured; until the last arrival where `end` is None."""
        self.measured_from = self.moment(start)
        self.measured_until = NEVER if end is None else self.moment(end)

    def set_reports(self, double loss, double window, int64_t delay):
        """Answers carry the server's load as it was `delay` before, but for the share `loss`; servers average over `window`."""
        check_number("window", window, 1.0)
        check_number("delay", delay, 0)
        self.report_delay = delay
        self.reporting = True
        self.report_loss = loss
        self.report_window = window

    def set_probes(self, count):
        """Before the first run: how many probes clients that pick by them send beside each attempt."""
        if not 0 <= count <= MOST_PROBES:
            raise ValueError(f"count {count}: expected 0 to {MOST_PROBES}")
        if count and self.recent == NULL:
            self.recent = <RecentAnswers*>calloc(self.server_count, sizeof(RecentAnswers))
            if self.recent == NULL:
                raise MemoryError("no memory for a simulation's probes")
        self.probes = count

    def set_retries(self, uint32_t limit, int64_t timeout, double budget, uint32_t concurrency):
        self.retry_limit = limit
        self.retry_timeout = timeout
        self.retry_budget = budget
        self.retry_concurrency = concurrency

    def set_client(self, uint32_t client, Balancer balancer not None, members):
        """Whose picks the client follows, and the server of each member of it, in order. Again after each update."""
        cdef uint32_t i
        cdef uint32_t count
        cdef uint32_t* servers
        known = [self.server_number(member) for member in members]
        count = <uint32_t>len(known)
        if client >= self.client_count:
            raise IndexError(f"client {client}: there are {self.client_count}")
        servers = <uint32_t*>malloc((count or 1) * sizeof(uint32_t))
        if servers == NULL:
            raise MemoryError("no memory for a simulation's client")
        for i in range(count):
            servers[i] = known[i]
        free(self.clients[client].servers)
        self.clients[client].servers = servers
        self.clients[client].count = count
        self.balancers[client] = balancer

    def set_present(self, uint32_t server, bint present):
        """Whether the baselines know it; for clients it is their membership that says so."""
        self.servers[self.server_number(server)].present = present

    def set_speed(self, uint32_t server, double speed):
        """From now on, for what it is working at too; 0 pauses it."""
        cdef SimulatedServer* it = &self.servers[self.server_number(server)]
        cdef Attempt* attempt
        cdef uint32_t i
        check_number("speed", speed, 0.0)
        self.account(it)
        for i in range(it.busy):
            attempt = &self.attempts[it.served[i]]
            attempt.work = max(0.0, attempt.work - <double>(self.clock.now - attempt.resumed) * it.speed)
        it.speed = speed
        for i in range(it.busy):
            self.resume(it.served[i])

    def set_failing(self, uint32_t server, double share, double work):
        """The share of requests that it will answer with an error, and how long that takes at speed 1."""
        check_number("work", work, 0.0)
        self.servers[self.server_number(server)].failing = share
        self.servers[server].failure_work = work

    def run(self, until):
        """Runs up to a time, exclusive; None: until all is answered. Returns how many requests are finished."""
        cdef int64_t end = NEVER if until is None else self.moment(until)
        cdef Event event
        check_number("interval", self.arriving.interval, 1e-3)
        if self.baseline == NO_BASELINE and None in self.balancers:
            raise RuntimeError("set_client before run, for each of the clients")
        while True:
            if self.arriving.left > 0 and (
                self.events.count == 0 or self.arriving.next < self.events.events[0].time
            ):
                if self.arriving.next >= end:
                    break
                self.clock.now = self.arriving.next
                self.arrive()
            elif self.events.count > 0 and self.events.events[0].time < end:
                event = event_pop(&self.events)
                self.clock.now = event.time
                self.happen(&event)
            else:
                break
        if end != NEVER:
            self.clock.now = end
        return self.finished

    @property
    def arrivals_left(self):
        return self.arriving.left

    def server_figures(self):
        """For each server: busy time of a worker on average in the measured time, the most outstanding, outstanding."""
        cdef uint32_t i
        figures = []
        for i in range(self.server_count):
            self.account(&self.servers[i])
            figures.append((
                self.servers[i].busy_time / self.servers[i].workers, self.servers[i].most, self.servers[i].outstanding,
            ))
        return figures

    cdef int64_t moment(self, object time) except? -1:
        """ns of the clock; the end of time for what lies beyond it."""
        return min(time + self.origin, NEVER)

    cdef uint32_t server_number(self, object number) except? 0:
        if not 0 <= number < self.server_count:
            raise IndexError(f"server {number}: there are {self.server_count}")
        return number

    cdef int arrive(self) except -1:
        cdef uint64_t request = self.records.count - self.arriving.left
        cdef uint32_t client = <uint32_t>lb_multiply_high(random_bits(&self.arriving.client_random), self.client_count)
        self.records.arrival_at[request] = self.clock.now - self.origin
        self.records.work_of[request] = service_time_draw(&self.service_time)
        self.arriving.left -= 1
        arrivals_advance(&self.arriving)
        if self.arriving.left == 0:
            self.measured_until = min(self.measured_until, self.clock.now)
        return self.send(<uint32_t>request, client, random_bits(&self.arriving.key_random), False)

    cdef int send(self, uint32_t request, uint32_t client, uint64_t key, bint retry) except -1:
        """The client picks, and the request is on its way."""
        cdef Slot* slot = NULL
        cdef int64_t met = -1
        cdef uint32_t server, index
        cdef Attempt* attempt
        cdef SimulatedServer* it
        if self.baseline != NO_BASELINE:
            server = baseline_choose(self.baseline, self.servers, self.server_count, &self.tie_random)
        else:
            server = self.choose_by_policy(client, key, &slot, &met)
        self.records.tries_of[request] += 1
        if server == NOBODY:
            return self.finish(request, FAILED, NOBODY)
        self.records.note_pick(self.clock.now - self.origin, server)
        index = new_attempt(self)
        attempt = &self.attempts[index]
        attempt.sent = self.clock.now
        attempt.slot = slot
        attempt.met = met
        attempt.request = request
        attempt.client = client
        attempt.server = server
        attempt.work = self.records.work_of[request]
        attempt.retry = retry
        attempt.failed = False
        attempt.waited_for = True
        self.clients[client].active += 1
        self.clients[client].retrying += retry
        it = &self.servers[server]
        it.outstanding += 1
        if self.measured_from <= self.clock.now < self.measured_until:
            it.most = max(it.most, it.outstanding)
        self.happens_after(self.network_delay, REACHED, index)
        if self.retry_timeout:
            self.happens_after(self.retry_timeout, TIMED_OUT, index)
        if self.probes and slot != NULL:
            send_probes(self, client)
        return 0

    cdef uint32_t choose_by_policy(self, uint32_t client, uint64_t key, Slot** slot, int64_t* met) except? 0:
        """Exactly what `acquire` does; NOBODY where it would raise NoEndpointAvailable."""
        cdef Balancer balancer = <Balancer>self.balancers[client]
        cdef int32_t member = choose_member(balancer, key if balancer.hashing else 0)
        if member < 0:
            return NOBODY
        if <uint32_t>member >= self.clients[client].count:
            raise RuntimeError(f"client {client}: its cluster has changed since set_client")
        slot[0] = balancer.begin(member)
        met[0] = balancer.draw.met
        return self.clients[client].servers[member]

    cdef int happens_after(self, double delay, EventKind kind, uint32_t index) except -1:
        cdef Attempt* attempt = &self.attempts[index]
        return event_push(&self.events, time_after(self.clock.now, delay), kind, attempt.serial, index, attempt.version)

    cdef int happen(self, const Event* event) except -1:
        cdef uint32_t index = event.subject
        cdef uint64_t kind = event.order >> KIND_BITS
        cdef Attempt* attempt = &self.attempts[index]
        if kind == LOAD_SEEN:
            see_load(self, index)
        elif kind == REACHED:
            self.reach(index)
        elif kind == SERVED:
            if attempt.version == event.version:
                self.leave(index)
        elif kind == ANSWERED:
            self.answer(index)
        elif kind == TIMED_OUT:
            if attempt.waited_for and (event.order & (<uint64_t>1 << KIND_BITS) - 1) == attempt.serial:
                self.give_up(index)
        elif kind == PROBE_REACHED:
            answer_probe(self, index)
        elif kind == PROBED:
            take_probe(self, index)
        return 0

    cdef int reach(self, uint32_t index) except -1:
        cdef Attempt* attempt = &self.attempts[index]
        cdef SimulatedServer* server = &self.servers[attempt.server]
        attempt.reached = self.clock.now
        attempt.found = server_in_flight(server)
        if server.busy < server.workers:
            self.start(server, index)
        else:
            server_enqueue(server, self.attempts, index)
        if self.report_delay:
            note_load(self, attempt.server)
        return 0

    cdef int start(self, SimulatedServer* server, uint32_t index) except -1:
        """A worker takes it up."""
        cdef Attempt* attempt = &self.attempts[index]
        self.account(server)
        if server.failing > 0.0 and random_unit(&self.fault_random) < server.failing:
            attempt.failed = True
            attempt.work = server.failure_work
        server_take_up(server, self.attempts, index)
        return self.resume(index)

    cdef int resume(self, uint32_t index) except -1:
        """Its completion, at the speed that its server has now."""
        cdef Attempt* attempt = &self.attempts[index]
        cdef SimulatedServer* server = &self.servers[attempt.server]
        attempt.version += 1
        attempt.resumed = self.clock.now
        if server.speed > 0.0:
            self.happens_after(attempt.work / server.speed, SERVED, index)
        return 0

    cdef int leave(self, uint32_t index) except -1:
        """It is served: the answer goes back, and the worker takes up the next one."""
        cdef Attempt* attempt = &self.attempts[index]
        cdef uint32_t number = attempt.server
        cdef SimulatedServer* server = &self.servers[number]
        self.account(server)
        server_let_go(server, self.attempts, index)
        if self.recent != NULL:
            answers_note(&self.recent[attempt.server], attempt, self.clock.now)
        if self.reporting:
            server.completion_rate += 1e9 / self.report_window
            if attempt.failed:
                server.failure_rate += 1e9 / self.report_window
            attempt.load = server.seen if self.report_delay else server_load(server)
        self.happens_after(self.network_delay, ANSWERED, index)
        if server.waiting:
            self.start(server, server_dequeue(server, self.attempts))
        if self.report_delay:
            note_load(self, number)
        return 0

    cdef int answer(self, uint32_t index) except -1:
        """The answer is back at the client, unless it has stopped waiting."""
        cdef Attempt* attempt = &self.attempts[index]
        cdef bint waited_for = attempt.waited_for
        cdef bint ok = not attempt.failed
        cdef const Load* load = NULL
        self.servers[attempt.server].outstanding -= 1
        if waited_for:
            if self.reporting and (self.report_loss == 0.0 or random_unit(&self.report_random) >= self.report_loss):
                load = &attempt.load
            self.end_attempt(attempt, ok, 200 if ok else 503, load)
        free_attempt_again(self, index)
        if waited_for:
            return self.conclude(attempt.request, attempt.client, attempt.server, ok)
        return 0

    cdef int give_up(self, uint32_t index) except -1:
        """The client waits no longer; the server knows nothing of it, and works on."""
        cdef Attempt* attempt = &self.attempts[index]
        self.end_attempt(attempt, False, 504, NULL)
        return self.conclude(attempt.request, attempt.client, attempt.server, False)

    cdef int end_attempt(self, Attempt* attempt, bint ok, int status, const Load* load) except -1:
        """Exactly what `Lease.done` does."""
        cdef Outcome outcome
        cdef Slot* slot = attempt.slot
        attempt.waited_for = False
        attempt.slot = NULL
        self.clients[attempt.client].active -= 1
        self.clients[attempt.client].retrying -= attempt.retry
        if slot != NULL:
            memset(&outcome, 0, sizeof(Outcome))
            outcome.ok = ok
            outcome.status = status
            outcome.now = self.clock.now
            outcome.latency = self.clock.now - attempt.sent
            outcome.met = attempt.met
            outcome.load = load
            slot_finish(slot, &outcome)
        return 0

    cdef int conclude(self, uint32_t request, uint32_t client, uint32_t server, bint ok) except -1:
        """The end of a request, or a retry where it failed and the budget allows one (Envoy's RetryBudget)."""
        cdef SimulatedClient* it = &self.clients[client]
        cdef double allowed
        if not ok and self.records.tries_of[request] <= self.retry_limit:
            allowed = max(<double>it.active * self.retry_budget, <double>self.retry_concurrency)
            if <double>it.retrying < allowed:
                return self.send(request, client, random_bits(&self.tie_random), True)
        return self.finish(request, SUCCEEDED if ok else FAILED, server)

    cdef int finish(self, uint32_t request, RequestState state, uint32_t server) except -1:
        cdef Records records = self.records
        records.state_of[request] = state
        records.server_of[request] = <int32_t>server
        records.latency_of[request] = self.clock.now - self.origin - records.arrival_at[request]
        self.finished += 1
        return 0

    cdef int account(self, SimulatedServer* server) except -1:
        server_account(
            server, self.clock.now, self.measured_from, self.measured_until,
            self.report_window if self.reporting else 0.0,
        )
        return 0
