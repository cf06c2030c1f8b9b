"""What one check has found: `Outcome`. Values only.

Source: Envoy envoy/data/core/v3/health_check_event.proto, HealthCheckFailureType.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Cause", "Outcome"]


class Cause(enum.Enum):
    """Why a check failed. Failures of the network count to `unhealthy_threshold`, others fail the endpoint at once."""

    ACTIVE = "active"  # the endpoint answered, and not as it should
    NETWORK = "network"  # no connection, or a broken one
    NETWORK_TIMEOUT = "network_timeout"  # no answer in time


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one check.

    Fields:
        cause: of its failure; None where it passed.
        reason: in words, for people.
        degraded: it passed, and the endpoint says that it is degraded (`x-envoy-degraded`).
        retriable: it failed, and counts to `unhealthy_threshold` all the same (`retriable_statuses`).
        excluded: it failed, and the endpoint says that it leaves (`x-envoy-immediate-health-check-fail`).
    """

    cause: Cause | None = None
    reason: str = ""
    degraded: bool = False
    retriable: bool = False
    excluded: bool = False

    @property
    def passed(self) -> bool:
        """Whether the endpoint is well, or at least degraded."""
        return self.cause is None

    @property
    def counts(self) -> bool:
        """Whether a failure needs `unhealthy_threshold` of its kind in a row."""
        return self.retriable or self.cause in (Cause.NETWORK, Cause.NETWORK_TIMEOUT)
