# distutils: language = c
"""The native core of lbcore: which endpoint gets this request.

One extension out of one translation unit, so that every call between its parts is direct. Each part is one file and one
concept, listed here from the bottom up; the public declarations are in lbcore/_core.pxd.
"""

cimport cython

include "arithmetic.pxi"
include "hashing.pxi"
include "clock.pxi"
include "table_memory.pxi"
include "slot.pxi"
include "selector.pxi"
include "distribution_sort.pxi"
include "schedule.pxi"
include "slow_start.pxi"
include "round_robin.pxi"
include "random_choice.pxi"
include "least_request.pxi"
include "ring.pxi"
include "ring_change.pxi"
include "ketama.pxi"
include "maglev.pxi"
include "rendezvous.pxi"
include "jump.pxi"
include "bounded_load.pxi"
include "policy_settings.pxi"
include "priority.pxi"
include "locality.pxi"
include "snapshot.pxi"
include "snapshot_builder.pxi"
include "lease.pxi"
include "balancer.pxi"
include "hot_methods.pxi"
include "batch.pxi"
include "batch_hashing.pxi"
include "ranking.pxi"
include "explaining.pxi"
