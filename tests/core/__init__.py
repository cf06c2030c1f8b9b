"""The native core against the plain-Python specification in `tests/reference/` and the contract of `lbcore.Cluster`."""
