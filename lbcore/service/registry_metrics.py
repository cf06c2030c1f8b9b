"""What the registry holds, for Prometheus; read when it is scraped."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lbcore.errors import NotReady
from lbcore.registry.registry import Registry

__all__ = ["RegistryCollector"]


class RegistryCollector(Collector):
    """Registrations by service and state, leases held by self-preservation, the revision."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: asked at registration for names, which collecting would give only once the state exists."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        registrations = GaugeMetricFamily(
            "lbcore_registry_registrations",
            "Registrations: live, stale (not heard of since a restart) or held (silent with most of their service)",
            labels=["service", "state"],
        )
        try:
            found = list(self._registry.registrations(""))
        except NotReady:
            return
        states = Tally((each.service, "held" if each.held else "stale" if each.stale else "live") for each in found)
        for (service, state), count in sorted(states.items()):
            registrations.add_metric([service, state], count)
        yield registrations
        held = GaugeMetricFamily("lbcore_registry_leases_held", "Leases held by self-preservation", labels=["service"])
        for service, count in self._registry.held.items():
            held.add_metric([service], count)
        yield held
        damped = GaugeMetricFamily("lbcore_registry_damped", "Endpoints held back for flapping", labels=["service"])
        for service, count in self._registry.damped.items():
            damped.add_metric([service], count)
        yield damped
        yield GaugeMetricFamily("lbcore_registry_revision", "Of the newest change", self._registry.revision)
