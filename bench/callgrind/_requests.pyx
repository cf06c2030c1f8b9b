# cython: language_level=3, binding=False
"""Callgrind's client requests, so that one process under valgrind counts one loop after the other."""

cdef extern from *:
    """
    #include <valgrind/callgrind.h>
    static void start(void) { CALLGRIND_START_INSTRUMENTATION; }
    static void stop(void) { CALLGRIND_STOP_INSTRUMENTATION; }
    static void dump(const char *label) { CALLGRIND_DUMP_STATS_AT(label); }
    """
    void start()
    void stop()
    void dump(const char* label)


def count(bytes label, run):
    """Calls `run()` and has callgrind write the instructions it took under a label."""
    start()
    run()
    stop()
    dump(label)
