"""Retries, time limits, hedging, faults and limits around a `Cluster`, for programs that call its endpoints themselves.

    response = await call(cluster, attempt, retry=Retry(attempts=3), timeout=2.0)

Each part is a value of its own and works without the others; `call` puts them together.
"""

from lbcore.resilience.adaptive_concurrency import AdaptiveConcurrency
from lbcore.resilience.admission_control import AdmissionControl
from lbcore.resilience.attempt import Attempt, current_attempt, remaining
from lbcore.resilience.backoff import Backoff
from lbcore.resilience.budget import RetryBudget, RetryThrottle
from lbcore.resilience.calling import call
from lbcore.resilience.fault_injection import FaultInjected, FaultInjection
from lbcore.resilience.hedge import Hedge
from lbcore.resilience.limit import Limit
from lbcore.resilience.outcome import Outcome
from lbcore.resilience.retry import Retry

__all__ = [
    "AdaptiveConcurrency",
    "AdmissionControl",
    "Attempt",
    "Backoff",
    "FaultInjected",
    "FaultInjection",
    "Hedge",
    "Limit",
    "Outcome",
    "Retry",
    "RetryBudget",
    "RetryThrottle",
    "call",
    "current_attempt",
    "remaining",
]
