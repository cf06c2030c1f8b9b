"""The event log: each change of an endpoint's state as a line of JSON.

The fields are those of Envoy's HealthCheckEvent (envoy/data/core/v3/health_check_event.proto) in its JSON form, and
`reason` in words, which Envoy does not say.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lbcore.address import split_address
from lbcore.event_log import EventLog, timestamp
from lbcore.health.outcome import Outcome
from lbcore.health.state import CheckState
from lbcore.model import Endpoint
from lbcore.settings import HealthCheck

__all__ = ["CheckEventLog", "events_of"]


def events_of(
    settings: HealthCheck, before: tuple[bool, bool, bool], state: CheckState, outcome: Outcome
) -> list[dict[str, Any]]:
    """The events of one result, as Envoy logs them; `before` is what the state was: checked, failed, degraded.

    >>> from lbcore.health.outcome import Cause
    >>> from lbcore.settings import HttpHealthCheck
    >>> settings, outcome = HealthCheck(http=HttpHealthCheck(), unhealthy_threshold=1), Outcome(Cause.NETWORK)
    >>> state = CheckState(settings)
    >>> _ = state.take(Outcome())
    >>> _ = state.take(outcome)
    >>> events_of(settings, (True, False, False), state, outcome)
    [{'eject_unhealthy_event': {'failure_type': 'NETWORK'}}]
    """
    checked, failed, degraded = before
    events: list[dict[str, Any]] = []
    if outcome.cause is not None:
        failure = {"failure_type": outcome.cause.name}
        if state.failed and not failed:
            events.append({"eject_unhealthy_event": failure})
        if not checked or settings.always_log_health_check_failures:
            events.append({"health_check_failure_event": {**failure, "first_check": not checked}})
        return events
    if failed and not state.failed:
        events.append({"add_healthy_event": {"first_check": not checked}})
    elif settings.always_log_health_check_success:
        events.append({"successful_health_check_event": {}})
    if state.degraded and not degraded:
        events.append({"degraded_healthy_host": {}})
    if degraded and not state.degraded:
        events.append({"no_longer_degraded_host": {}})
    return events


class CheckEventLog:
    """Appends the events of one service to a file."""

    def __init__(self, service: str, settings: HealthCheck, wall_clock: Callable[[], float] = time.time) -> None:
        self._service = service
        self._kind = "HTTP" if settings.http else "TCP" if settings.tcp else "GRPC"
        path = settings.event_log_path
        self._log = EventLog(path, f"health check events of {service!r}") if path else None
        self._wall_clock = wall_clock

    def write(self, endpoint: Endpoint, events: list[dict[str, Any]], reason: str) -> None:
        """Appends a line for each event."""
        if self._log is None or not events:
            return
        common = {
            "health_checker_type": self._kind,
            "host": _host(endpoint.address),
            "cluster_name": self._service,
            "timestamp": timestamp(self._wall_clock()),
            **({"reason": reason} if reason else {}),
        }
        self._log.append({**common, **event} for event in events)

    def close(self) -> None:
        """Closes the file."""
        if self._log is not None:
            self._log.close()


def _host(address: str) -> dict[str, Any]:
    host, port = split_address(address)
    return {"pipe": {"path": host}} if port is None else {"socket_address": {"address": host, "port_value": port}}
