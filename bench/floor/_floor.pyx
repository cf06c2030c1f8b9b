# cython: language_level=3, binding=False, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Floors: methods of each shape that do nothing, and the inner loops that no batch pick or build can beat.

Built as lbcore's core is (binding=False, -O3), so that a ratio shows the work and not the build.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, uint16_t, uint64_t, uint8_t


@cython.final
@cython.freelist(64)
cdef class FloorLease:
    """What a lease cannot do without: an object from a free list with an endpoint and a `done`."""

    cdef readonly object endpoint

    def done(self, ok=True, *, status=None, latency=None, load=None):
        return None


@cython.final
cdef class Floor:
    """Methods that return one object kept inside."""

    cdef object endpoint

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def noargs(self):
        return self.endpoint

    def one(self, key):
        return self.endpoint

    def pick(self, key=None):
        return self.endpoint

    def __getitem__(self, key):
        return self.endpoint

    def acquire(self, key=None):
        cdef FloorLease lease = FloorLease.__new__(FloorLease)
        lease.endpoint = self.endpoint
        return lease


def gather(const uint64_t[::1] hashes, const uint16_t[::1] table, int32_t[::1] picks):
    """Writes table[hash % 65537] for each hash. The divisor is a constant, as no real table's is."""
    cdef Py_ssize_t i
    with nogil:
        for i in range(hashes.shape[0]):
            picks[i] = table[hashes[i] % 65537]


def visit(Py_ssize_t size, Py_ssize_t skip):
    """Takes each slot of a table once, `skip` apart: a Maglev build in which no two endpoints want the same slot."""
    cdef Py_ssize_t taken = 0
    cdef Py_ssize_t slot = 0
    cdef uint8_t* slots = <uint8_t*>PyMem_Calloc(size, 1)
    if slots == NULL:
        raise MemoryError()
    while not slots[slot]:
        slots[slot] = 1
        taken += 1
        slot += skip
        if slot >= size:
            slot -= size
    PyMem_Free(slots)
    return taken
