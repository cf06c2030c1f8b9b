# How loaded every endpoint of a cluster is, in one array, so that the least of a thousand is found in some tens of
# nanoseconds. Endpoints stand in it by priority, availability and locality, each such part in blocks of its own: what any
# selector of the cluster picks among is a range of whole blocks. Of each block the least score and how many have it are
# kept up to date with every write: a tournament of two rounds, whose first round is over when a pick begins.
#
# A score is a non-negative float; its bits, read as an integer, order as it does. An update of the cluster lays a new
# board out; selectors hold on to the one they were made for, so that none reads freed memory.

cdef enum:
    BLOCK = 32
    NOWHERE = 0             # the place of slots that no selector of the cluster picks: a block of its own
cdef int32_t NO_SCORE = 0x7F800000      # infinity: of places without an endpoint

cdef extern from *:
    """
    static inline int32_t lb_score_bits(double score) {
        float single = (float)score;
        int32_t bits;
        __builtin_memcpy(&bits, &single, sizeof bits);
        return bits;
    }
    static inline double lb_score_of(int32_t bits) {
        float single;
        __builtin_memcpy(&single, &bits, sizeof single);
        return single;
    }
    /* The tallest finite score keeps an endpoint with a queue beyond reason apart from no endpoint at all. */
    #define LB_TALLEST 3.4e38
    """
    int32_t lb_score_bits(double score) noexcept nogil
    double lb_score_of(int32_t bits) noexcept nogil
    double LB_TALLEST

cdef struct Scoreboard:
    int64_t refs            # the fleet's, and one for each selector
    uint32_t blocks
    int32_t* scores         # by place
    int32_t* least          # by block
    uint32_t* ties          # by block: how many have the least
    Slot** slots            # by place; NULL where none is. Alive while the board is the fleet's


cdef Scoreboard* scoreboard_new(uint32_t blocks) noexcept nogil:
    cdef Scoreboard* board = <Scoreboard*>calloc(1, sizeof(Scoreboard))
    cdef uint32_t i
    if board == NULL:
        return NULL
    board.refs = 1
    board.blocks = blocks
    board.scores = <int32_t*>malloc(<size_t>blocks * BLOCK * sizeof(int32_t))
    board.least = <int32_t*>malloc(blocks * sizeof(int32_t))
    board.ties = <uint32_t*>calloc(blocks, sizeof(uint32_t))
    board.slots = <Slot**>calloc(<size_t>blocks * BLOCK, sizeof(Slot*))
    if board.scores == NULL or board.least == NULL or board.ties == NULL or board.slots == NULL:
        scoreboard_release(board)
        return NULL
    for i in range(blocks * BLOCK):
        board.scores[i] = NO_SCORE
    for i in range(blocks):
        board.least[i] = NO_SCORE
    return board


cdef void scoreboard_release(Scoreboard* board) noexcept nogil:
    if board == NULL:
        return
    board.refs -= 1
    if board.refs > 0:
        return
    free(board.scores)
    free(board.least)
    free(board.ties)
    free(board.slots)
    free(board)


cdef inline void scoreboard_write(Scoreboard* board, uint32_t place, double score) noexcept nogil:
    cdef int32_t bits = lb_score_bits(score if score < LB_TALLEST else LB_TALLEST)
    cdef int32_t before = board.scores[place]
    cdef uint32_t block = place // BLOCK
    board.scores[place] = bits
    if bits < board.least[block]:
        board.least[block] = bits
        board.ties[block] = 1
    elif before == board.least[block]:
        if bits != before:
            board.ties[block] -= 1
            if board.ties[block] == 0:
                block_recount(board, block)
    elif bits == board.least[block]:
        board.ties[block] += 1


cdef inline void block_recount(Scoreboard* board, uint32_t block) noexcept nogil:
    cdef const int32_t* scores = board.scores + <size_t>block * BLOCK
    cdef int32_t least = NO_SCORE
    cdef uint32_t ties = 0
    cdef uint32_t i
    for i in range(BLOCK):
        least = scores[i] if scores[i] < least else least
    for i in range(BLOCK):
        ties += scores[i] == least
    board.least[block] = least
    board.ties[block] = ties


cdef uint32_t scoreboard_least(
    const Scoreboard* board, uint32_t first, uint32_t end, uint32_t preferred, uint64_t* random
) noexcept nogil:
    """The place of the least score in some blocks: the preferred one if it has it, else any that does, evenly at random."""
    cdef const int32_t* leasts = board.least
    cdef const int32_t* scores
    cdef int32_t least = NO_SCORE
    cdef uint32_t ties = 0
    cdef uint32_t rank
    cdef uint32_t i
    cdef uint32_t block = first
    if end - first > 1:
        for i in range(first, end):
            least = leasts[i] if leasts[i] < least else least
        if board.scores[preferred] == least:
            return preferred
        for i in range(first, end):
            ties += board.ties[i] if leasts[i] == least else 0
        rank = <uint32_t>lb_multiply_high(random_bits(random), ties) if ties > 1 else 0
        while leasts[block] != least or rank >= board.ties[block]:
            rank -= board.ties[block] if leasts[block] == least else 0
            block += 1
    else:
        least = leasts[block]
        if board.scores[preferred] == least:
            return preferred
        ties = board.ties[block]
        rank = <uint32_t>lb_multiply_high(random_bits(random), ties) if ties > 1 else 0
    scores = board.scores + <size_t>block * BLOCK
    i = 0
    while scores[i] != least or rank:
        rank -= scores[i] == least
        i += 1
    return block * BLOCK + i
