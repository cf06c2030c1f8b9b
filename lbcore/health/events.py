"""The event log: each change of an endpoint's state as a line of JSON.

The fields are those of Envoy's HealthCheckEvent (envoy/data/core/v3/health_check_event.proto) in its JSON form, and
`reason` in words, which Envoy does not say.
"""

from __future__ import annotations

import datetime
import json
import logging
import time
from collections.abc import Callable
from typing import Any, TextIO

from lbcore.address import split_address
from lbcore.health.outcome import Outcome
from lbcore.health.state import CheckState
from lbcore.model import Endpoint
from lbcore.settings import HealthCheck

__all__ = ["EventLog", "events_of"]

LOG = logging.getLogger(__name__)


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


class EventLog:
    """Appends the events of one service to a file. What cannot be written is logged once, and checks go on."""

    def __init__(self, service: str, settings: HealthCheck, wall_clock: Callable[[], float] = time.time) -> None:
        self._service = service
        self._kind = "HTTP" if settings.http else "TCP" if settings.tcp else "GRPC"
        self._path = settings.event_log_path
        self._wall_clock = wall_clock
        self._file: TextIO | None = None
        self._broken = False

    def write(self, endpoint: Endpoint, events: list[dict[str, Any]], reason: str) -> None:
        """Appends a line for each event."""
        if not (events and self._path) or self._broken:
            return
        moment = datetime.datetime.fromtimestamp(self._wall_clock(), datetime.timezone.utc)
        common = {
            "health_checker_type": self._kind,
            "host": _host(endpoint.address),
            "cluster_name": self._service,
            "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            **({"reason": reason} if reason else {}),
        }
        try:
            if self._file is None:
                self._file = open(self._path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - kept open
            self._file.writelines(json.dumps({**common, **event}) + "\n" for event in events)
        except OSError as error:
            self._broken = True
            LOG.error("no more health check events of %r: %s: %s", self._service, self._path, error.strerror)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _host(address: str) -> dict[str, Any]:
    host, port = split_address(address)
    return {"pipe": {"path": host}} if port is None else {"socket_address": {"address": host, "port_value": port}}
