# A Selector is what a policy compiles to over one group of endpoints: a few C functions and the tables they read. It is
# chosen once, when a snapshot is built, so that no pick branches on the policy. Each policy's struct begins with a
# Selector. Everything in it is immutable once the snapshot is published, but for the cursor of a schedule.
#
# A member is an endpoint's position in the cluster's tuple; functions return a member, or NO_MEMBER.

cdef enum: NO_MEMBER = -1
cdef double LEAST_SCORE = 1e-9            # so that none draws all

# Discovery's health, active checks and ejections taken together.
cdef enum Availability:
    HEALTHY
    DEGRADED
    UNAVAILABLE

ctypedef int32_t (*ChooseFunction)(Selector*, Draw*, uint64_t) noexcept nogil
# One member for each of n hashes (NULL for policies that do not hash).
ctypedef void (*ChooseManyFunction)(Selector*, Draw*, const uint64_t*, int32_t*, Py_ssize_t) noexcept nogil
# Takes what choose_many will consume for n picks out of the shared state into the batch's own Draw, so that the batch
# runs without the GIL and still equals n single picks.
ctypedef void (*ReserveFunction)(Selector*, Draw*, Draw*, Py_ssize_t) noexcept nogil
# Member number `attempt` in a key's own order; 0 is what choose returns.
ctypedef int32_t (*AttemptFunction)(Selector*, uint64_t, uint32_t) noexcept nogil
# How loaded the endpoint at a position of the group is at a time (ns), in the policy's own unit: the least is picked.
ctypedef double (*ScoreFunction)(Selector*, uint32_t, int64_t) noexcept nogil
ctypedef void (*FreeFunction)(Selector*) noexcept nogil

cdef struct Selector:
    ChooseFunction choose
    ChooseManyFunction choose_many
    ReserveFunction reserve     # NULL where a batch must keep the GIL, because it reads counts that others write
    AttemptFunction attempt     # NULL for policies that do not hash
    ScoreFunction score         # NULL for policies that do not look at load
    bint scans                  # the least score of all is picked: a second pick would only be the first again
    FreeFunction free
    uint32_t count              # endpoints in the group
    uint32_t* members           # in the group's order; owned
    Slot** slots                # of the members, in the same order; owned
    uint32_t* weights           # of the members, in the same order; owned
    const uint8_t* availability # by member; the snapshot's
    Availability wanted         # of the members; UNAVAILABLE: whatever theirs is, as in panic
    uint32_t cursor             # in a schedule: the one thing here that a pick writes


# What a selector is compiled from: some endpoints of one priority, in order.
cdef struct Group:
    uint32_t count
    uint32_t* members
    Slot** slots
    uint32_t* weights
    double* shares              # of the whole, summing to 1; only for policies that hash
    const char** hash_keys      # UTF-8, borrowed from the endpoints; only for policies that hash
    Py_ssize_t* hash_key_sizes
    bint equal_weights
    bint equal_localities       # shares are as the weights
    bint ramping                # some member is in slow start
    Scoreboard* board           # borrowed; NULL where the policy keeps none
    uint32_t* places            # of the members on it
    const uint8_t* availability # by member; the snapshot's
    Availability wanted         # of the members; UNAVAILABLE: whatever they are
    int32_t* previous           # position in the group before, -1 for who is new; NULL where there is none to follow
    uint32_t* gone              # positions in the group before of those that are not in this one, and their keys
    const char** gone_keys
    Py_ssize_t* gone_key_sizes
    uint32_t gone_count


cdef Group* group_new(uint32_t count, bint hashing) except NULL:
    cdef Group* group = <Group*>calloc(1, sizeof(Group))
    if group == NULL:
        raise MemoryError("no memory for a group of endpoints")
    group.count = count
    group.members = <uint32_t*>malloc((count or 1) * sizeof(uint32_t))
    group.slots = <Slot**>malloc((count or 1) * sizeof(Slot*))
    group.weights = <uint32_t*>malloc((count or 1) * sizeof(uint32_t))
    if hashing:
        group.shares = <double*>malloc((count or 1) * sizeof(double))
        group.hash_keys = <const char**>malloc((count or 1) * sizeof(char*))
        group.hash_key_sizes = <Py_ssize_t*>malloc((count or 1) * sizeof(Py_ssize_t))
    if group.members == NULL or group.slots == NULL or group.weights == NULL or (
        hashing and (group.shares == NULL or group.hash_keys == NULL or group.hash_key_sizes == NULL)
    ):
        group_free(group)
        raise MemoryError("no memory for a group of endpoints")
    return group


cdef void group_free(Group* group) noexcept nogil:
    if group == NULL:
        return
    free(group.members)
    free(group.slots)
    free(group.weights)
    free(group.shares)
    free(group.places)
    free(group.hash_keys)
    free(group.hash_key_sizes)
    free(group.previous)
    free(group.gone)
    free(group.gone_keys)
    free(group.gone_key_sizes)
    free(group)


cdef void* selector_new(size_t size, Group* group) noexcept nogil:
    """A zeroed selector that has taken the group's arrays over; NULL without memory."""
    cdef Selector* selector = <Selector*>calloc(1, size)
    if selector == NULL:
        return NULL
    selector.free = selector_free
    selector.count = group.count
    selector.members = group.members
    selector.slots = group.slots
    selector.weights = group.weights
    selector.availability = group.availability
    selector.wanted = group.wanted
    group.members = NULL
    group.slots = NULL
    group.weights = NULL
    return selector


cdef inline bint selector_may_use(const Selector* selector, uint32_t position) noexcept nogil:
    """Always so but where a group holds places for endpoints that are out (jump.pxi)."""
    return (
        selector.wanted == UNAVAILABLE
        or selector.availability[selector.members[position]] == <uint8_t>selector.wanted
    )


cdef void selector_free(Selector* selector) noexcept nogil:
    free(selector.members)
    free(selector.slots)
    free(selector.weights)
    free(selector)


cdef void choose_one_by_one(
    Selector* selector, Draw* draw, const uint64_t* hashes, int32_t* out, Py_ssize_t count
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        out[i] = selector.choose(selector, draw, hashes[i] if hashes != NULL else 0)


cdef int32_t scan_by_score(Selector* selector, Draw* draw, uint64_t hash) noexcept nogil:
    """The least score of all; ties are broken evenly at random (reservoir sampling)."""
    cdef uint32_t best = 0
    cdef double least = selector.score(selector, 0, draw.now)
    cdef uint32_t ties = 1
    cdef uint32_t i
    cdef double score
    for i in range(1, selector.count):
        score = selector.score(selector, i, draw.now)
        if score < least:
            best = i
            least = score
            ties = 1
        elif score == least:
            ties += 1
            if lb_multiply_high(random_bits(&draw.random), ties) == 0:
                best = i
    return <int32_t>selector.members[best]


cdef uint32_t draw_by_score(Selector* selector, Draw* draw) noexcept nogil:
    """A position at random, each as often as its score is low (weighted reservoir sampling: Chao, Biometrika 1982)."""
    cdef uint32_t drawn = 0
    cdef double total = 0.0
    cdef double share
    cdef uint32_t i
    for i in range(selector.count):
        share = 1.0 / max(selector.score(selector, i, draw.now), LEAST_SCORE)
        total += share
        if random_unit(&draw.random) * total < share:
            drawn = i
    return drawn
