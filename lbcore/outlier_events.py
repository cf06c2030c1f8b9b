"""The event log of outlier detection: each ejection and each return of an endpoint as a line of JSON.

The fields are those of Envoy's OutlierDetectionEvent (envoy/data/cluster/v3/outlier_detection_event.proto) in its JSON
form, where they fit: a return also says which `type` of ejection it ends, and `reason` says in words why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from lbcore.event_log import EventLog, timestamp

__all__ = ["OutlierEventLog"]

_TYPES = {
    "consecutive_5xx": "CONSECUTIVE_5XX",
    "consecutive_gateway_failure": "CONSECUTIVE_GATEWAY_FAILURE",
    "consecutive_local_origin_failure": "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
    "success_rate": "SUCCESS_RATE",
    "failure_percentage": "FAILURE_PERCENTAGE",
    "local_origin_success_rate": "SUCCESS_RATE_LOCAL_ORIGIN",
    "local_origin_failure_percentage": "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
}
_REASONS = {
    "spared": "the enforcing percentage left it in",
    "returned": "its ejection time is over",
    "passed_check": "it passed an active check",
}


class OutlierEventLog:
    """Writes what a cluster's core has noted of its outliers."""

    def __init__(self, cluster: str, path: str, wall_clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._log = EventLog(path, f"outlier detection events of {cluster!r}")
        self._wall_clock = wall_clock

    def write(self, noted: Iterable[tuple[Any, ...]], now: int) -> None:
        """Appends a line for each; `now` is the cluster's clock, by which they tell when they were."""
        wall = self._wall_clock()
        self._log.append(self._event(*each, wall=wall, now=now) for each in noted)
        self._log.close()  # they are rare, and clusters come and go

    def _event(
        self,
        kind: str,
        endpoint: Any,
        cause: str,
        at: int,
        since: int,
        times_ejected: int,
        success_rate: float,
        average: float,
        threshold: float,
        *,
        wall: float,
        now: int,
    ) -> dict[str, Any]:
        ejects = kind in ("ejected", "spared")
        event: dict[str, Any] = {"type": _TYPES[cause], "timestamp": timestamp(wall - (now - at) / 1e9)}
        if since >= 0:
            event["secs_since_last_action"] = str(
                since // 1_000_000_000
            )  # a 64-bit number is a string in protobuf's JSON
        event |= {
            "cluster_name": self._cluster,
            "upstream_url": endpoint.address,
            "action": "EJECT" if ejects else "UNEJECT",
            "num_ejections": times_ejected,
            "enforced": kind == "ejected",
        }
        if ejects:
            event |= _details(cause, success_rate, average, threshold)
        return {**event, "reason": _REASONS.get(kind, cause)}


def _details(cause: str, success_rate: float, average: float, threshold: float) -> dict[str, Any]:
    """What an ejection was judged by; whole percentages, as Envoy writes them."""
    if cause.endswith("success_rate"):
        figures = {
            "host_success_rate": _percent(success_rate),
            "cluster_average_success_rate": _percent(average),
            "cluster_success_rate_ejection_threshold": _percent(threshold),
        }
        return {"eject_success_rate_event": figures}
    if cause.endswith("failure_percentage"):
        return {"eject_failure_percentage_event": {"host_success_rate": _percent(success_rate)}}
    return {"eject_consecutive_event": {}}


def _percent(value: float) -> int:
    return max(0, int(value))
