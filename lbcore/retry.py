"""When a proxy or a gRPC client tries a request again, and how soon. A value.

Source: Envoy RetryPolicy (route_components.proto, router_filter: x-envoy-retry-on, x-envoy-retry-grpc-on), gRFC A44.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

from lbcore.errors import Mistake
from lbcore.schema import Checked
from lbcore.validation import UINT32_MAX, Interval, Seconds, Whole, refusal, whole

__all__ = ["RETRY_ON", "RetryBackOff", "RetryPolicy"]

_OF_GRPC = ("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable")
RETRY_ON = (
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    *_OF_GRPC,
)
"""What Envoy retries on; gRPC heeds the last five, its own status codes."""


def retry_on(value: object, field: str) -> tuple[str, ...]:
    """One reason or more."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise refusal(field, value, "expected a list of reasons")
    reasons = tuple(value)
    for reason in reasons:
        if reason not in RETRY_ON:
            raise refusal(field, reason, f"expected one of {', '.join(RETRY_ON)}")
    if not reasons:
        raise refusal(field, value, "expected one reason or more")
    return reasons


def status_codes(value: object, field: str) -> tuple[int, ...]:
    """HTTP status codes."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise refusal(field, value, "expected a list of HTTP status codes")
    return tuple(whole(code, field, 100, 599) for code in value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBackOff(Checked):
    """The wait before the n-th retry is random, up to base_interval x (2^n - 1) and never above max_interval.

    `max_interval` is by default ten times the base.
    """

    base_interval: Interval = 0.025
    max_interval: Interval | None = None

    def contradictions(self) -> Iterator[Mistake]:
        if self.max_interval is not None and self.max_interval < self.base_interval:
            what = f"max_interval {self.max_interval:g}: expected at least base_interval {self.base_interval:g}"
            yield Mistake(("max_interval",), what, see=("base_interval",))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy(Checked):
    """What is tried again, how often and how soon.

    Fields:
        retry_on: names of Envoy's.
        num_retries: after the first try; gRPC makes at most 4.
        per_try_timeout: of each try; Envoy's alone. 0: the route's timeout is all there is.
        retriable_status_codes: for `retriable-status-codes`.
    """

    retry_on: Annotated[tuple[str, ...], retry_on]
    num_retries: Annotated[int, Whole(1, UINT32_MAX)] = 1
    per_try_timeout: Annotated[float, Seconds(0.0)] = 0.0
    retriable_status_codes: Annotated[tuple[int, ...], status_codes] = ()
    retry_back_off: RetryBackOff | None = None

    def contradictions(self) -> Iterator[Mistake]:
        if self.retriable_status_codes and "retriable-status-codes" not in self.retry_on:
            what = "retriable_status_codes: expected retriable-status-codes in retry_on, or they count for nothing"
            yield Mistake(("retriable_status_codes",), what, see=("retry_on",))
