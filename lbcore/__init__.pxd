# So that other Cython modules may write `from lbcore cimport Balancer, Lease`.

from lbcore._core cimport Balancer, Lease, Load, Outcome, Slot, Totals, VirtualClock
