"""Leases and registrations in plain Python, by the rules of docs/registry.md and with no thought of speed."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ModelLease", "ModelRegistry"]


@dataclass
class ModelLease:
    """An agent's lease. `entries` maps (service, address) to what was announced."""

    ttl: float
    granted: int
    heard: float
    entries: dict[tuple[str, str], object] = field(default_factory=dict)
    calm_since: float | None = None  # held, and since when that is no part of a mass loss


class ModelRegistry:
    """Every method takes the time."""

    def __init__(self, max_expiry_percent: float, min_leases: int) -> None:
        self.max_expiry_percent = max_expiry_percent
        self.min_leases = min_leases
        self.leases: dict[int, ModelLease] = {}
        self.grants = 0

    def grant(self, lease: int, ttl: float, now: float) -> None:
        self.grants += 1
        self.leases[lease] = ModelLease(ttl, self.grants, now)

    def hear(self, lease: int, now: float) -> None:
        self.leases[lease].heard = now
        self.leases[lease].calm_since = None

    def register(self, lease: int, key: tuple[str, str], content: object) -> bool:
        for other in self.leases.values():
            if key in other.entries and other is not self.leases[lease]:
                if other.granted > self.leases[lease].granted and other.calm_since is None:
                    return False
                del other.entries[key]
        self.leases[lease].entries[key] = content
        return True

    def deregister(self, lease: int, key: tuple[str, str]) -> bool:
        return self.leases[lease].entries.pop(key, None) is not None

    def sweep(self, now: float) -> None:
        keep = {name for name, lease in self.leases.items() if self._lives(lease, now)}
        self.leases = {name: lease for name, lease in self.leases.items() if name in keep}

    def registered(self) -> dict[tuple[str, str], object]:
        return {key: content for lease in self.leases.values() for key, content in lease.entries.items()}

    def _lives(self, lease: ModelLease, now: float) -> bool:
        if now - lease.heard < lease.ttl:
            return True
        if any(self._is_lost(service, now) for service, _ in lease.entries):
            lease.calm_since = now
            return True
        return lease.calm_since is not None and now - lease.calm_since < lease.ttl

    def _is_lost(self, service: str, now: float) -> bool:
        """Of the service's leases, as they were before this sweep, too many have missed their heartbeats."""
        its = [lease for lease in self.leases.values() if any(of == service for of, _ in lease.entries)]
        overdue = [lease for lease in its if now - lease.heard > lease.ttl / 2]
        return len(its) >= self.min_leases and 100 * len(overdue) > self.max_expiry_percent * len(its)
