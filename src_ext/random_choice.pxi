# An endpoint at random, by weight: Walker's alias table in Vose's form ("A Linear Algorithm for Generating Random Numbers
# with a Given Distribution", 1991). One draw serves both choices: its high product names the column, its low product is
# uniform within it. With equal weights the column alone is the answer.

cdef struct AliasEntry:
    uint64_t threshold      # the column's own member below it, of 2^64
    uint32_t member
    uint32_t alias

cdef struct RandomSelector:
    Selector base
    AliasEntry* columns     # NULL with equal weights


cdef Selector* random_new(Group* group) noexcept nogil:
    cdef RandomSelector* selector
    cdef AliasEntry* columns = NULL
    if not group.equal_weights:
        columns = alias_table(group)
        if columns == NULL:
            return NULL
    selector = <RandomSelector*>selector_new(sizeof(RandomSelector), group)
    if selector == NULL:
        free(columns)
        return NULL
    selector.columns = columns
    selector.base.choose = random_choose if columns == NULL else random_choose_weighted
    selector.base.choose_many = choose_one_by_one
    selector.base.reserve = random_reserve
    selector.base.free = random_free
    return &selector.base


cdef void random_free(Selector* base) noexcept nogil:
    free((<RandomSelector*>base).columns)
    selector_free(base)


cdef int32_t random_choose(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    return <int32_t>base.members[lb_multiply_high(random_bits(&draw.random), base.count)]


cdef int32_t random_choose_weighted(Selector* base, Draw* draw, uint64_t hash) noexcept nogil:
    cdef uint64_t bits = random_bits(&draw.random)
    cdef const AliasEntry* column = (<RandomSelector*>base).columns + lb_multiply_high(bits, base.count)
    return <int32_t>(column.member if bits * base.count < column.threshold else column.alias)


cdef void random_reserve(Selector* base, Draw* shared, Draw* batch, Py_ssize_t count) noexcept nogil:
    batch.random = shared.random
    shared.random += <uint64_t>count * <uint64_t>0xA0761D6478BD642FULL


cdef AliasEntry* alias_table(const Group* group) noexcept nogil:
    """Exact: all is counted in units of total / count of the integer weights."""
    cdef uint32_t count = group.count
    cdef AliasEntry* columns = <AliasEntry*>malloc(count * sizeof(AliasEntry))
    cdef uint64_t* filled = <uint64_t*>malloc(count * sizeof(uint64_t))
    cdef uint32_t* stack = <uint32_t*>malloc(count * sizeof(uint32_t))
    cdef uint64_t total = 0
    cdef uint32_t i, small, large
    cdef uint32_t smalls = 0
    cdef uint32_t larges = count
    if columns == NULL or filled == NULL or stack == NULL:
        free(columns)
        columns = NULL
        count = 0
    for i in range(count):
        total += group.weights[i]
    for i in range(count):
        filled[i] = <uint64_t>group.weights[i] * count
        columns[i].member = group.members[i]
        columns[i].alias = group.members[i]
        columns[i].threshold = 0xFFFFFFFFFFFFFFFFULL
        if filled[i] < total:
            stack[smalls] = i
            smalls += 1
        else:
            larges -= 1
            stack[larges] = i
    while smalls and larges < count:
        smalls -= 1
        small = stack[smalls]
        large = stack[larges]
        columns[small].threshold = lb_divide_wide(filled[small], total)
        columns[small].alias = group.members[large]
        filled[large] -= total - filled[small]
        if filled[large] < total:
            larges += 1
            stack[smalls] = large
            smalls += 1
    free(filled)
    free(stack)
    return columns
