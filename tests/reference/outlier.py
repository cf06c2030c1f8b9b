"""Outlier detection in plain Python: Envoy outlier_detection_impl.cc, and lbcore's one rule more.

How a request ended becomes a status (`putResult`); statuses move counters; a counter that reaches its threshold, or a
rate that a sweep finds wanting, is a detection; a detection ejects as far as the limits and the enforcing percentage
let it. Sweeps also let endpoints return and forgive them their past.

The rule more: an ejection must leave another usable endpoint in its priority. Percentages that enforce are 0 or 100
here. Times are whole nanoseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from lbcore.model import Endpoint, Health
from lbcore.settings import OutlierDetection
from tests.reference.summing import plain_sum

_USABLE = (Health.UNKNOWN, Health.HEALTHY, Health.DEGRADED)


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


@dataclass
class Bucket:
    """How requests ended in the current interval."""

    total: int = 0
    successes: int = 0

    def add(self, success: bool) -> None:
        self.total += 1
        self.successes += success

    def rate(self, volume: int) -> float | None:
        """Percent of successes, if there were requests enough, and any."""
        return self.successes * 100.0 / self.total if self.total and self.total >= volume else None


@dataclass
class Host:
    endpoint: Endpoint
    failed_check: bool = False
    ejected: bool = False
    cause: str | None = None
    ejected_at: int = 0
    returned_at: int | None = None
    times_ejected: int = 0
    backoff: int = 0
    in_a_row: Counter[str] = field(default_factory=Counter)
    external: Bucket = field(default_factory=Bucket)
    local: Bucket = field(default_factory=Bucket)
    success_rate: float | None = None
    local_success_rate: float | None = None

    @property
    def usable(self) -> bool:
        return self.endpoint.health in _USABLE and not self.failed_check and not self.ejected


class Detector:
    def __init__(self, settings: OutlierDetection, start: int) -> None:
        self.settings = settings
        self.interval = nanoseconds(settings.interval)
        self.next_sweep = start + self.interval
        self.hosts: dict[str, Host] = {}
        self.enforced: Counter[str] = Counter()
        self.detected: Counter[str] = Counter()
        self.overflow = 0
        self.average: dict[str, float | None] = {}
        self.threshold: dict[str, float | None] = {}

    # Membership and checks

    def update(self, endpoints: Iterable[Endpoint]) -> None:
        """Who stays keeps its state, also in another priority; who joins, or joins again, starts anew."""
        hosts = {}
        for endpoint in endpoints:
            host = hosts[endpoint.address] = self.hosts.get(endpoint.address, Host(endpoint))
            host.endpoint = endpoint
        self.hosts = hosts

    def checked(self, address: str, passed: bool, now: int) -> None:
        host = self.hosts[address]
        host.failed_check = not passed
        if passed and host.ejected and self.settings.successful_active_health_check_uneject_host:
            self._return(host, now)

    # Requests

    def ended(self, address: str, ok: bool, status: int | None, now: int) -> None:
        """A failure without a status is of local origin; one with a status is at least a 500."""
        host = self.hosts.get(address)
        if host is None:
            return
        failed = not ok or (status is not None and status >= 500)
        split = self.settings.split_external_local_origin_errors
        if failed and status is None and split:
            host.local.add(False)
            self._one_more(host, "consecutive_local_origin_failure", now)
            return
        if split:
            host.local.add(True)
            host.in_a_row["consecutive_local_origin_failure"] = 0
        host.external.add(not failed)
        if not failed:
            host.in_a_row["consecutive_5xx"] = host.in_a_row["consecutive_gateway_failure"] = 0
            return
        code = 503 if status is None else max(status, 500)
        if code in (502, 503, 504):
            self._one_more(host, "consecutive_gateway_failure", now)
        else:
            host.in_a_row["consecutive_gateway_failure"] = 0
        self._one_more(host, "consecutive_5xx", now)

    def _one_more(self, host: Host, cause: str, now: int) -> None:
        host.in_a_row[cause] += 1
        if host.in_a_row[cause] == getattr(self.settings, cause) and not host.ejected:
            self._detect(host, cause, now)
            host.in_a_row[cause] = 0

    # Ejections

    def _detect(self, host: Host, cause: str, now: int) -> None:
        self.detected[cause] += 1
        if not self._may_eject(host):
            self.overflow += 1
        elif self._enforcing(cause):
            host.ejected = True
            host.cause = cause
            host.ejected_at = now
            host.times_ejected += 1
            settings = self.settings
            if host.backoff * settings.base_ejection_time < settings.max_ejection_time + settings.base_ejection_time:
                host.backoff += 1
            self.enforced[cause] += 1

    def _enforcing(self, cause: str) -> bool:
        names = {
            "local_origin_success_rate": "enforcing_local_origin_success_rate",
            "local_origin_failure_percentage": "enforcing_failure_percentage_local_origin",
        }
        percent: int = getattr(self.settings, names.get(cause, f"enforcing_{cause}"))
        assert percent in (0, 100)
        return percent == 100

    def _may_eject(self, host: Host) -> bool:
        others = [each for each in self.hosts.values() if each is not host]
        if not any(each.usable and each.endpoint.priority == host.endpoint.priority for each in others):
            return False
        return self._has_room(host)

    def _has_room(self, host: Host) -> bool:  # noqa: ARG002 - gRPC asks which
        if self.settings.always_eject_one_host and self.active == 0:
            return True
        return 100.0 * (self.active + 1) / len(self.hosts) <= self.settings.max_ejection_percent

    @property
    def active(self) -> int:
        return sum(host.ejected for host in self.hosts.values())

    def returns_at(self, host: Host) -> int:
        longest = nanoseconds(self.settings.max_ejection_time)
        return host.ejected_at + min(nanoseconds(self.settings.base_ejection_time) * host.backoff, longest)

    def _return(self, host: Host, now: int) -> None:
        host.ejected = False
        host.returned_at = now
        host.in_a_row.clear()

    # Sweeps

    def tick(self, now: int) -> None:
        """Sweeps fall on a grid; those that were missed are not made up for."""
        if now < self.next_sweep:
            return
        due = now - (now - self.next_sweep) % self.interval
        self.next_sweep = due + self.interval
        for host in self.hosts.values():
            if host.ejected and now >= self.returns_at(host):
                self._return(host, due)
            host.success_rate = host.local_success_rate = None
        self._judge("external", now)
        self._judge("local", now)
        for host in self.hosts.values():
            host.external, host.local = Bucket(), Bucket()
            if not host.ejected and host.backoff and due - (host.returned_at or 0) >= self.interval:
                host.backoff -= 1

    def _judge(self, origin: str, now: int) -> None:
        settings = self.settings
        prefix = "" if origin == "external" else "local_origin_"
        self.average[origin] = self.threshold[origin] = None
        members = [host for host in self.hosts.values() if not host.ejected]
        buckets = [(host, getattr(host, origin)) for host in members]
        for host, bucket in buckets:
            lower = min(settings.success_rate_request_volume, settings.failure_percentage_request_volume)
            setattr(host, "success_rate" if origin == "external" else "local_success_rate", bucket.rate(lower))

        rates = [(host, bucket.rate(settings.success_rate_request_volume)) for host, bucket in buckets]
        known = [(host, rate) for host, rate in rates if rate is not None]
        if known and len(known) >= settings.success_rate_minimum_hosts:
            mean = plain_sum(rate for _, rate in known) / len(known)
            deviation = math.sqrt(plain_sum((rate - mean) * (rate - mean) for _, rate in known) / len(known))
            self.average[origin] = mean
            self.threshold[origin] = threshold = mean - settings.success_rate_stdev_factor / 1000.0 * deviation
            for host, rate in known:
                if rate < threshold:
                    self._detect(host, f"{prefix}success_rate", now)

        rates = [(host, bucket.rate(settings.failure_percentage_request_volume)) for host, bucket in buckets]
        known = [(host, rate) for host, rate in rates if rate is not None]
        if known and len(known) >= settings.failure_percentage_minimum_hosts:
            for host, rate in known:
                if not host.ejected and 100.0 - rate >= settings.failure_percentage_threshold:
                    self._detect(host, f"{prefix}failure_percentage", now)
