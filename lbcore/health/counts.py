"""What the checks of one service count. Names as Envoy's health_check statistics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lbcore.health.outcome import Cause, Outcome

__all__ = ["CheckCounts"]


@dataclass(slots=True)
class CheckCounts:
    """Fields:
    attempt: checks begun; success: passed; inconclusive: timeouts that this process is to blame for.
    failures: checks that failed, by cause.
    transitions: changes of an endpoint's state, by the new state (`healthy`, `degraded`, `unhealthy`) and its cause.
    """

    attempt: int = 0
    success: int = 0
    inconclusive: int = 0
    failures: Counter[Cause] = field(default_factory=Counter)
    transitions: Counter[tuple[str, str]] = field(default_factory=Counter)

    def take(self, outcome: Outcome) -> None:
        """Counts one result."""
        if outcome.cause is None:
            self.success += 1
        else:
            self.failures[outcome.cause] += 1
