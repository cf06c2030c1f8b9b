"""Instructions instead of nanoseconds: what the hot paths cost, steady enough to notice a change of a few percent."""
