"""Retries, time limits, hedging, faults and limits: the rules without time, and calls against backends that fail."""
