"""Outlier detection by gRPC's rules in plain Python: gRFC A50; what that leaves open is as in C-core.

Each priority is judged by itself, by rates alone; who is out stays in the mean and is not ejected again; who has been
out for longer than its time returns after the judging. The rule more is that of `tests.reference.outlier`.
"""

from __future__ import annotations

import math

from tests.reference.outlier import Bucket, Detector, Host
from tests.reference.summing import plain_sum


class GrpcDetector(Detector):
    """Detects as gRPC does; what it shares with Envoy (counts of causes, times of ejections) is inherited."""

    def ended(self, address: str, ok: bool, status: int | None, now: int) -> None:  # noqa: ARG002 - as inherited
        """Every code but OK is a failure."""
        if host := self.hosts.get(address):
            host.external.add(ok and (status is None or status < 400))

    def tick(self, now: int) -> None:
        if now < self.next_sweep:
            return
        self.next_sweep = now - (now - self.next_sweep) % self.interval + self.interval
        for priority in sorted({host.endpoint.priority for host in self.hosts.values()} | {0}):
            members = [host for host in self.hosts.values() if host.endpoint.priority == priority]
            if self.settings.enforcing_success_rate:
                self._judge_success_rates(members, priority, now)
            if self.settings.enforcing_failure_percentage:
                self._judge_failure_percentages(members, now)
        for host in self.hosts.values():
            host.success_rate = host.external.rate(1)
            host.external = Bucket()
            if not host.ejected:
                host.backoff -= host.backoff > 0
            elif now > self.returns_at(host):
                self._return(host, now)

    def _judge_success_rates(self, members: list[Host], priority: int, now: int) -> None:
        settings = self.settings
        rates = [(host, host.external.rate(settings.success_rate_request_volume)) for host in members]
        known = [(host, rate) for host, rate in rates if rate is not None]
        mean: float | None = None
        threshold: float | None = None
        if known and len(known) >= settings.success_rate_minimum_hosts:
            mean = plain_sum(rate for _, rate in known) / len(known)
            deviation = math.sqrt(plain_sum((rate - mean) * (rate - mean) for _, rate in known) / len(known))
            threshold = mean - settings.success_rate_stdev_factor / 1000.0 * deviation
            for host, rate in known:
                if rate < threshold and not host.ejected:
                    self._detect(host, "success_rate", now)
        if priority == 0:
            self.average["external"], self.threshold["external"] = mean, threshold

    def _judge_failure_percentages(self, members: list[Host], now: int) -> None:
        settings = self.settings
        rates = [(host, host.external.rate(settings.failure_percentage_request_volume)) for host in members]
        known = [(host, rate) for host, rate in rates if rate is not None]
        if known and len(known) >= settings.failure_percentage_minimum_hosts:
            for host, rate in known:
                if 100.0 - rate > settings.failure_percentage_threshold and not host.ejected:
                    self._detect(host, "failure_percentage", now)

    def _has_room(self, host: Host) -> bool:
        """The percentage of its priority is tested before an ejection, the one to come not counted."""
        members = [each for each in self.hosts.values() if each.endpoint.priority == host.endpoint.priority]
        return 100.0 * sum(each.ejected for each in members) / len(members) < self.settings.max_ejection_percent
