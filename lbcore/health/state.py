"""The state machine of one checked endpoint: results of checks in, its health and the time to the next check out.

No clock and no I/O; random numbers are the caller's. The semantics are those of Envoy's ActiveHealthCheckSession
(source/extensions/health_checkers/common/health_checker_base_impl.cc), in milliseconds as there.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from lbcore.health.outcome import Cause, Outcome
from lbcore.model import CheckedHealth
from lbcore.settings import HealthCheck

__all__ = ["CheckState", "Transition", "first_delay"]

_SHORTEST_MS = 1  # Envoy never waits less, so that checks cannot starve all else

Draw = Callable[[int], int]  # a random whole number below its argument, as random.Random.randrange


class Transition(enum.Enum):
    """What a result did to an endpoint's state."""

    UNCHANGED = "unchanged"
    PENDING = "pending"  # on the way to another state: a threshold is being counted
    CHANGED = "changed"


class CheckState:
    """What checks have found of one endpoint.

    Fields, to be read:
        checked: whether there has been a result; until then `failed` is as Envoy begins, not what is known.
        failed: active checks fail (Envoy's FAILED_ACTIVE_HC).
        degraded: the last passed check said so (DEGRADED_ACTIVE_HC).
        excluded: it failed by its own word, and leaves the denominators (EXCLUDED_VIA_IMMEDIATE_HC_FAIL).
        timed_out: it fails, and the last failure was a timeout (ACTIVE_HC_TIMEOUT).

    >>> from lbcore.settings import HttpHealthCheck
    >>> state = CheckState(HealthCheck(http=HttpHealthCheck(), unhealthy_threshold=2))
    >>> state.take(Outcome()), state.failed
    (<Transition.CHANGED: 'changed'>, False)
    >>> state.take(Outcome(Cause.NETWORK)), state.failed
    (<Transition.PENDING: 'pending'>, False)
    >>> state.take(Outcome(Cause.NETWORK)), state.failed
    (<Transition.CHANGED: 'changed'>, True)
    """

    __slots__ = (
        *("_healthy", "_last", "_settings", "_unhealthy"),
        *("checked", "degraded", "excluded", "failed", "timed_out"),
    )

    def __init__(self, settings: HealthCheck) -> None:
        self._settings = settings
        self._healthy = 0  # passed checks in a row, while failed
        self._unhealthy = 0  # failed checks in a row that count, while not failed
        self._last = (False, Transition.UNCHANGED)  # whether the last check passed, and what it did
        self.checked = False
        self.failed = True
        self.degraded = self.excluded = self.timed_out = False

    def found(self, reason: str) -> CheckedHealth:
        """What the checks have found, as the rest of lbcore takes it."""
        return CheckedHealth(
            passing=not self.failed,
            degraded=self.degraded and not self.failed,
            excluded=self.excluded and self.failed,
            timed_out=self.timed_out,
            reason=reason,
        )

    def adopt(self, found: CheckedHealth) -> None:
        """Goes on from what another checker has found, so that the thresholds hold for the next result too."""
        self.checked = True
        self.failed = not found.passing
        self.degraded, self.excluded, self.timed_out = found.degraded, found.excluded, found.timed_out

    def take(self, outcome: Outcome) -> Transition:
        """Takes the result of a check; returns what it changed."""
        transition = self._passed(outcome) if outcome.passed else self._not_passed(outcome)
        self.checked = True
        self._last = (outcome.passed, transition)
        return transition

    def next_interval(self, draw: Draw, *, traffic: bool = True) -> float:
        """Seconds from the end of the last check to the next; `traffic`: whether the service has ever had any."""
        passed, transition = self._last
        pending = transition is Transition.PENDING
        return _with_jitter(self._base_interval(passed, pending, traffic), self._settings, draw)

    def _passed(self, outcome: Outcome) -> Transition:
        self._unhealthy = 0
        transition = Transition.UNCHANGED
        if self.failed:
            self._healthy += 1
            # The first result ever decides, so that a start is quick.
            if self.checked and self._healthy < self._settings.healthy_threshold:
                transition = Transition.PENDING
            else:
                self.failed = self.timed_out = self.excluded = False
                transition = Transition.CHANGED
        else:
            self.excluded = False
        if outcome.degraded != self.degraded:
            self.degraded = outcome.degraded
            if transition is Transition.UNCHANGED:
                transition = Transition.CHANGED
        return transition

    def _not_passed(self, outcome: Outcome) -> Transition:
        self._healthy = 0
        transition = Transition.UNCHANGED
        if outcome.excluded:
            self.excluded = True
        if not self.failed:
            self._unhealthy += 1
            if outcome.counts and self._unhealthy < self._settings.unhealthy_threshold:
                transition = Transition.PENDING
            else:
                self.failed = True
                transition = Transition.CHANGED
        elif not self.checked:
            transition = Transition.CHANGED  # from not known to failed
        self.timed_out = self.failed and outcome.cause is Cause.NETWORK_TIMEOUT
        return transition

    def _base_interval(self, passed: bool, pending: bool, traffic: bool) -> float:
        settings = self._settings
        if not traffic:
            healthy = settings.no_traffic_healthy_interval
            return healthy if passed and not pending and healthy is not None else settings.no_traffic_interval
        if passed:
            edge = settings.healthy_edge_interval
            return edge if pending and edge is not None else settings.interval
        usual = settings.interval if settings.unhealthy_interval is None else settings.unhealthy_interval
        edge = settings.unhealthy_edge_interval
        return edge if pending and edge is not None else usual


def first_delay(settings: HealthCheck, draw: Draw) -> float:
    """Seconds from when an endpoint joins to its first check."""
    jitter = round(settings.initial_jitter * 1000)
    return max(draw(jitter), _SHORTEST_MS) / 1000 if jitter else 0.0


def _with_jitter(base: float, settings: HealthCheck, draw: Draw) -> float:
    base_ms = round(base * 1000)
    total_ms = base_ms
    if share := settings.interval_jitter_percent * base_ms // 100:
        total_ms += draw(share)
    if jitter := round(settings.interval_jitter * 1000):
        total_ms += draw(jitter)
    return max(total_ms, _SHORTEST_MS) / 1000
