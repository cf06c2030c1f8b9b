# What a pick reads: immutable once published (but for cursors), built off to the side, replaced whole. It holds the
# endpoints, their slots, and a tree of stages: priority, then locality, then a policy's selector. Where the tree has only
# one way through, `direct` is its end, and a pick goes there at once.

from cpython.object cimport PyObject

cdef extern from *:
    """
    #define lb_tuple_items(t) ((void**)((PyTupleObject*)(t))->ob_item)
    """
    void** tuple_items "lb_tuple_items"(object items) noexcept

# What checks and outlier detection say of a slot's endpoint, whatever discovery says.
cdef enum SlotFlag:
    FAILED_ACTIVE_CHECK = 1
    DEGRADED_ACTIVE_CHECK = 2
    EXCLUDED_BY_CHECK = 4       # it has failed by its own word, and counts as a draining one
    EJECTED = 8                 # by outlier detection
    DEPARTED = 16               # its address has left the cluster; requests to it may be in flight

# Where one priority's healthy or degraded part of the traffic goes: through localities, to one selector, or nowhere.
cdef struct Choice:
    LocalityStage* localities
    Selector* selector


@cython.internal
@cython.final
cdef class Snapshot:
    cdef tuple endpoints
    cdef Slot** slots               # one reference each
    cdef uint32_t count
    cdef uint8_t* availability      # by member
    cdef uint32_t* weights          # by member
    cdef Scoreboard* board          # one reference; NULL where the policy keeps none
    cdef uint32_t* places           # on it, by member
    cdef PriorityState* priorities
    cdef uint32_t priority_count
    cdef Choice* choices            # healthy then degraded, by priority
    cdef uint16_t by_percent[100]   # index into choices
    cdef Selector* direct
    cdef bint pure                  # a pick writes nothing: a batch needs no GIL
    cdef int64_t ramp_end           # ns; the last slow start is over
    cdef list keys                  # (priority, availability or panic, locality) of each selector
    cdef list orders                # hash keys of each selector's group, in order; None for policies without
    cdef Selector** selectors       # owned
    cdef LocalityStage** stages     # owned
    cdef uint32_t selector_count
    cdef uint32_t stage_count
    cdef uint32_t room              # in selectors and stages

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.selector_count):
            self.selectors[i].free(self.selectors[i])
        for i in range(self.stage_count):
            locality_stage_free(self.stages[i])
        if self.slots != NULL:
            for i in range(self.count):
                if self.slots[i] != NULL:
                    slot_release(self.slots[i])
        free(self.slots)
        free(self.availability)
        free(self.weights)
        free(self.places)
        scoreboard_release(self.board)
        free(self.priorities)
        free(self.choices)
        free(self.selectors)
        free(self.stages)

    cdef int own_selector(self, Selector* selector, tuple key, list order) except -1:
        self.make_room()
        self.selectors[self.selector_count] = selector
        self.selector_count += 1
        self.keys.append(key)
        self.orders.append(order)
        return 0

    cdef int own_stage(self, LocalityStage* stage) except -1:
        self.make_room()
        self.stages[self.stage_count] = stage
        self.stage_count += 1
        return 0

    cdef int make_room(self) except -1:
        cdef uint32_t room = self.room * 2 if self.room else 4
        cdef void* selectors
        cdef void* stages
        if self.selector_count < self.room and self.stage_count < self.room:
            return 0
        selectors = realloc(self.selectors, room * sizeof(Selector*))
        if selectors != NULL:
            self.selectors = <Selector**>selectors
        stages = realloc(self.stages, room * sizeof(LocalityStage*))
        if stages != NULL:
            self.stages = <LocalityStage**>stages
        if selectors == NULL or stages == NULL:
            raise MemoryError("no memory for a snapshot's selectors")
        self.room = room
        return 0

    cdef list order_of(self, tuple key):
        return self.orders[self.keys.index(key)] if key in self.keys else None

    cdef Selector* selector_of(self, tuple key) except? NULL:
        cdef uint32_t i
        for i in range(self.selector_count):
            if self.keys[i] == key:
                return self.selectors[i]
        return NULL


cdef inline Selector* snapshot_select(Snapshot snapshot, Draw* draw, uint64_t priority_hash) noexcept nogil:
    """Through the stages to a selector; NULL where there is nobody to give."""
    cdef Choice* choice = &snapshot.choices[snapshot.by_percent[priority_hash % 100]]
    if choice.localities != NULL:
        return choice.localities.choose(choice.localities, draw)
    return choice.selector
