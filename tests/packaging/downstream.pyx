# cython: language_level=3
"""A module of somebody else's that picks through lbcore without a Python call."""

from lbcore cimport Balancer, Slot

from libc.stdint cimport int32_t, uint64_t


def pick_by_hash(Balancer cluster, uint64_t hash):
    """The position in `cluster.endpoints` for a hash, and the requests in flight there while this one was."""
    cdef int32_t member = cluster.choose(hash)
    cdef Slot* slot = cluster.begin(member)
    cdef int active = slot.active
    cluster.end(slot, True)
    return member, active
