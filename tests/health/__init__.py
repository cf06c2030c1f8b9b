"""Active checks: the state machine without time, probes and checkers against real backends."""
