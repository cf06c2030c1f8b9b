# Memory of large tables, in huge pages where the system has them: a table of some MiB is then filled without thousands of
# page faults, and looked up without as many misses of the address cache. Freed by free().

from libc.stdlib cimport calloc, malloc, realloc

cdef extern from *:
    """
    #include <sys/mman.h>
    static inline void lb_advise_huge(void *memory, size_t size) {
    #ifdef MADV_HUGEPAGE
        madvise(memory, size, MADV_HUGEPAGE);   /* only advice: a refusal changes nothing */
    #else
        (void)memory; (void)size;
    #endif
    }
    """
    void lb_advise_huge(void* memory, size_t size) noexcept nogil

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)

cdef enum: HUGE_PAGE = 2097152


cdef void* table_new(size_t size) noexcept nogil:
    """Not zeroed; NULL without memory."""
    cdef void* memory = NULL
    if size < 2 * HUGE_PAGE:
        return malloc(size or 1)
    if posix_memalign(&memory, HUGE_PAGE, size) != 0:
        return NULL
    lb_advise_huge(memory, size)
    return memory
