"""What keeps retries from adding to an overload: `RetryBudget` as in Envoy, `RetryThrottle` as in gRPC.

Share one among all calls to a service; that is what makes it a limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Protocol

from lbcore.schema import Checked
from lbcore.validation import Number, Percent, Uint32

__all__ = ["DefaultBudget", "RetryBudget", "RetryLimit", "RetryThrottle"]


class RetryLimit(Protocol):
    """Says whether one more retry may be."""

    def begin(self) -> None:
        """A call begins."""

    def end(self) -> None:
        """A call ends."""

    def take(self) -> bool:
        """Whether a retry may be; it then counts until it is given back."""

    def give_back(self) -> None:
        """A retry has ended."""

    def heard(self, failed: bool) -> None:
        """An attempt has ended: with what may be tried again, or without."""


@dataclass(slots=True, kw_only=True)
class RetryBudget(Checked):
    """Retries in flight are at most a share of the calls in flight, and `min_retry_concurrency` are always allowed.

    Source: Envoy CircuitBreakers.Thresholds.RetryBudget, ResourceManagerImpl::RetryBudgetImpl.

    >>> budget = RetryBudget(min_retry_concurrency=1)
    >>> budget.take(), budget.take()
    (True, False)
    """

    budget_percent: Percent = 20.0
    min_retry_concurrency: Uint32 = 3
    _calls: int = field(default=0, init=False, repr=False)
    _retries: int = field(default=0, init=False, repr=False)

    def begin(self) -> None:
        """See `RetryLimit`."""
        self._calls += 1

    def end(self) -> None:
        """See `RetryLimit`."""
        self._calls -= 1

    def take(self) -> bool:
        """See `RetryLimit`."""
        if self._retries >= max(self._calls * self.budget_percent / 100, self.min_retry_concurrency):
            return False
        self._retries += 1
        return True

    def give_back(self) -> None:
        """See `RetryLimit`."""
        self._retries -= 1

    def heard(self, failed: bool) -> None:
        """See `RetryLimit`; a budget counts what is in flight, not how it ends."""


@dataclass(slots=True, kw_only=True)
class DefaultBudget(RetryBudget):
    """The budget of a `Retry` that is given none; a cluster's circuit breakers, where it has any, take its place."""


@dataclass(slots=True, kw_only=True)
class RetryThrottle(Checked):
    """Each failure costs a token, each success brings back `token_ratio` of one; with half of them gone nobody retries.

    Source: gRFC A6, retryThrottling.

    >>> throttle = RetryThrottle(max_tokens=2)
    >>> throttle.heard(failed=True)
    >>> throttle.take()
    False
    """

    max_tokens: Annotated[float, Number(0.0, 1000.0, above=True)] = 10.0
    token_ratio: Annotated[float, Number(0.0, above=True)] = 0.1
    _tokens: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        self.token_ratio = int(self.token_ratio * 1000) / 1000  # three decimals, as gRPC has it
        self._tokens = self.max_tokens

    def begin(self) -> None:
        """See `RetryLimit`; a throttle counts how attempts end, not what is in flight."""

    def end(self) -> None:
        """See `RetryLimit`."""

    def take(self) -> bool:
        """See `RetryLimit`."""
        return self._tokens > self.max_tokens / 2

    def give_back(self) -> None:
        """See `RetryLimit`."""

    def heard(self, failed: bool) -> None:
        """See `RetryLimit`."""
        change = -1.0 if failed else self.token_ratio
        self._tokens = min(max(self._tokens + change, 0.0), self.max_tokens)
