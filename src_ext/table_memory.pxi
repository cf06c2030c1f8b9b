# Memory of large tables, in huge pages where the system has them: a table of some MiB is then filled without thousands of
# page faults, and looked up without as many misses of the address cache.
#
# A few that are no longer needed stay for the next ring: the system would clear fresh pages first, for about as long as a
# change of one endpoint takes to write. What is kept is bounded, and shared by all clusters of the process.

from libc.stdlib cimport calloc, malloc, realloc

cdef extern from *:
    """
    #include <stddef.h>
    #include <sys/mman.h>
    static inline void lb_advise_huge(void *memory, size_t size) {
    #ifdef MADV_HUGEPAGE
        madvise(memory, size, MADV_HUGEPAGE);   /* only advice: a refusal changes nothing */
    #else
        (void)memory; (void)size;
    #endif
    }

    enum { LB_SPARES = 3 };
    static void *lb_spares[LB_SPARES];      /* each begins with its size */

    /* A spare of this size, or up to a quarter larger; NULL where there is none. */
    static void *lb_take_spare(size_t size) {
        for (int i = 0; i < LB_SPARES; i++) {
            void *spare = __atomic_exchange_n(&lb_spares[i], NULL, __ATOMIC_ACQUIRE);
            if (spare == NULL)
                continue;
            size_t has = *(size_t *)spare;
            if (size <= has && has <= size + size / 4)
                return spare;
            void *nothing = NULL;
            if (!__atomic_compare_exchange_n(
                    &lb_spares[i], &nothing, spare, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
                free(spare);
        }
        return NULL;
    }

    /* Whether the memory is kept; it takes the place of an older spare where all places are taken. */
    static int lb_keep_spare(void *memory, size_t size) {
    #ifdef __SANITIZE_ADDRESS__
        (void)memory; (void)size;
        return 0;       /* what is freed must look freed */
    #else
        static unsigned turn;
        *(size_t *)memory = size;
        for (int i = 0; i < LB_SPARES; i++) {
            void *nothing = NULL;
            if (__atomic_compare_exchange_n(
                    &lb_spares[i], &nothing, memory, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
                return 1;
        }
        unsigned place = __atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED) % LB_SPARES;
        free(__atomic_exchange_n(&lb_spares[place], memory, __ATOMIC_ACQ_REL));
        return 1;
    #endif
    }
    """
    void lb_advise_huge(void* memory, size_t size) noexcept nogil
    void* take_spare "lb_take_spare"(size_t size) noexcept nogil
    bint keep_spare "lb_keep_spare"(void* memory, size_t size) noexcept nogil

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)

cdef enum:
    HUGE_PAGE = 2097152
    LARGEST_SPARE = 16777216


cdef void* table_new(size_t size) noexcept nogil:
    """Not zeroed; NULL without memory. Freed by `free`, or better by `table_free`."""
    cdef void* memory = NULL
    if size < 2 * HUGE_PAGE:
        return malloc(size or 1)
    memory = take_spare(size)
    if memory != NULL:
        return memory
    if posix_memalign(&memory, HUGE_PAGE, size) != 0:
        return NULL
    lb_advise_huge(memory, size)
    return memory


cdef void table_free(void* memory, size_t size) noexcept nogil:
    """Of a table that has at least this size."""
    if memory == NULL or size < 2 * HUGE_PAGE or size > LARGEST_SPARE or not keep_spare(memory, size):
        free(memory)
