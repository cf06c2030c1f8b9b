"""Which attempts are made again: `Retry`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from lbcore.resilience.backoff import Backoff
from lbcore.resilience.budget import DefaultBudget, RetryLimit
from lbcore.resilience.outcome import Outcome
from lbcore.retry import RETRY_ON
from lbcore.schema import Checked
from lbcore.validation import Whole, refusal, whole

__all__ = ["Condition", "Retry"]

Condition: TypeAlias = "str | type[BaseException]"

_GRPC_CODES = ("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable")


def conditions(value: Any, field: str) -> tuple[Condition, ...]:
    """Envoy's names, and classes of errors."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise refusal(field, value, "expected a sequence of Envoy's names and classes of errors")
    found = tuple(value)
    for each in found:
        is_error = isinstance(each, type) and issubclass(each, BaseException)
        if not is_error and each not in RETRY_ON:
            raise refusal(field, each, f"expected a class of errors, or one of {', '.join(RETRY_ON)}")
    return found


def status_codes(value: Any, field: str) -> tuple[int, ...]:
    """HTTP statuses."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise refusal(field, value, "expected a sequence of HTTP statuses")
    return tuple(whole(code, field, 100, 599) for code in value)


def limit(value: Any, field: str) -> Any:
    """A `RetryLimit`, or None."""
    if value is not None and not callable(getattr(value, "take", None)):
        raise refusal(field, value, "expected a RetryBudget, a RetryThrottle, or None")
    return value


def predicate(value: Any, field: str) -> Any:
    """A callable, or None."""
    if value is not None and not callable(value):
        raise refusal(field, value, "expected a callable that takes an Outcome, or None")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry(Checked):
    """When a call is tried again, how often and how soon.

    Fields:
        attempts: at most, the first one included.
        retry_on: Envoy's names (x-envoy-retry-on, x-envoy-retry-grpc-on) and classes of errors.
        retriable_status_codes: for the name `retriable-status-codes`.
        also: a predicate of your own; it adds to `retry_on`.
        backoff: the wait before a retry. A gRPC server's `grpc-retry-pushback-ms` overrules it.
        budget: shared by all calls that use this value; None: no limit but that of the cluster's circuit breakers. The
            default is a `RetryBudget()` where the cluster has none of these.
        avoid_previous: retries go to endpoints that the call has not tried, as long as there are any.

    Source: Envoy RetryPolicy and its predicate previous_hosts, source/common/router/retry_state_impl.cc; gRFC A6.

    >>> Retry(attempts=3).wanted(Outcome(status=503)), Retry().wanted(Outcome(status=404))
    (True, False)
    """

    attempts: Annotated[int, Whole(1, 100)] = 2
    retry_on: Annotated[Sequence[Condition], conditions] = ("5xx", "unavailable")
    retriable_status_codes: Annotated[Sequence[int], status_codes] = ()
    also: Annotated[Callable[[Outcome], bool] | None, predicate] = None
    backoff: Backoff = field(default_factory=Backoff)
    budget: Annotated[RetryLimit | None, limit] = field(default_factory=DefaultBudget)
    avoid_previous: bool = True

    def wanted(self, outcome: Outcome) -> bool:
        """Whether an attempt that ended so may be made again."""
        return any(self._matches(each, outcome) for each in self.retry_on) or bool(self.also and self.also(outcome))

    def _matches(self, condition: Condition, outcome: Outcome) -> bool:
        status = outcome.status
        if isinstance(condition, type):
            return isinstance(outcome.error, condition)
        if condition in _GRPC_CODES:
            return status == condition.upper().replace("-", "_")
        if condition == "retriable-status-codes":
            return status in self.retriable_status_codes
        return _ENVOY[condition](outcome, status if isinstance(status, int) else 0)


# Envoy counts a connection that breaks as a 5xx and as a gateway error.
_ENVOY: dict[str, Callable[[Outcome, int], bool]] = {
    "5xx": lambda outcome, status: outcome.broken or status >= 500,
    "gateway-error": lambda outcome, status: outcome.broken or status in (502, 503, 504),
    "reset": lambda outcome, _: outcome.broken,
    "reset-before-request": lambda outcome, _: outcome.not_connected,
    "connect-failure": lambda outcome, _: outcome.not_connected,
    "refused-stream": lambda outcome, _: outcome.not_connected,
    "retriable-4xx": lambda _, status: status == 409,
    "envoy-ratelimited": lambda outcome, _: "x-envoy-ratelimited" in (getattr(outcome.result, "headers", None) or ()),
}
