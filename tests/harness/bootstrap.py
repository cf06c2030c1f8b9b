"""Static Envoy configuration from lbcore's own values, written from Envoy's API and not from lbcore's xDS code.

One listener serves every cluster: the request's header `x-cluster` names the cluster, `x-key` is what is hashed, and
the answer's `x-upstream` says which host Envoy chose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from lbcore.cluster import Cluster
from lbcore.model import Endpoint, Locality
from lbcore.policy import LeastRequest, Maglev, Policy, Random, RingHash, RoundRobin
from lbcore.settings import LocalityWeighted, ZoneAware

__all__ = ["StaticCluster", "static_bootstrap"]

Json = Any
_EXTENSIONS = "type.googleapis.com/envoy.extensions"


@dataclass(frozen=True, kw_only=True)
class StaticCluster:
    """What both sides are given: Envoy as a static cluster, lbcore as a `Cluster`."""

    name: str
    endpoints: tuple[Endpoint, ...]
    policy: Policy = field(default_factory=RoundRobin)
    overprovisioning_factor: int = 140
    panic_threshold: float = 50.0
    fail_traffic_on_panic: bool = False  # Envoy has it for policies that do not hash
    locality_policy: LocalityWeighted | ZoneAware | None = None
    locality_weights: Mapping[Locality | str, int] = field(default_factory=dict)

    def balancer(self, *, local_locality: Locality | None = None, seed: int | None = None) -> Cluster:
        """lbcore's cluster."""
        cluster = Cluster(
            self.name,
            policy=self.policy,
            locality_policy=self.locality_policy,
            local_locality=local_locality,
            overprovisioning_factor=self.overprovisioning_factor,
            panic_threshold=self.panic_threshold,
            fail_traffic_on_panic=self.fail_traffic_on_panic,
            seed=seed,
        )
        cluster.update(self.endpoints, locality_weights=self.locality_weights)
        return cluster

    def envoy_json(self) -> dict[str, Json]:
        """An envoy.config.cluster.v3.Cluster."""
        return {
            "name": self.name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_balancing_policy": {"policies": [{"typed_extension_config": self._policy()}]},
            "common_lb_config": {"healthy_panic_threshold": {"value": self.panic_threshold}},
            "load_assignment": {
                "cluster_name": self.name,
                "policy": {"overprovisioning_factor": self.overprovisioning_factor},
                "endpoints": self._localities(),
            },
        }

    def _policy(self) -> dict[str, Json]:
        """A TypedExtensionConfig of envoy.extensions.load_balancing_policies."""
        name, settings = _settings(self.policy)
        message = "".join(part.capitalize() for part in name.split("_"))
        kind = f"{_EXTENSIONS}.load_balancing_policies.{name}.v3.{message}"
        config = {"@type": kind, **settings, **self._locality_settings()}
        return {"name": f"envoy.load_balancing_policies.{name}", "typed_config": config}

    def _locality_settings(self) -> dict[str, Json]:
        if isinstance(self.policy, RingHash | Maglev):
            return {"locality_weighted_lb_config": {}} if self.locality_policy else {}
        if isinstance(self.locality_policy, LocalityWeighted):
            return {"locality_lb_config": {"locality_weighted_lb_config": {}}}
        zone_aware: dict[str, Json] = {"fail_traffic_on_panic": self.fail_traffic_on_panic}
        if isinstance(self.locality_policy, ZoneAware):
            zone_aware["routing_enabled"] = {"value": self.locality_policy.routing_enabled}
            zone_aware["min_cluster_size"] = self.locality_policy.min_cluster_size
            zone_aware["fail_traffic_on_panic"] |= self.locality_policy.fail_traffic_on_panic
            if (size := self.locality_policy.force_local_zone_min_size) is not None:
                zone_aware["force_local_zone"] = {"min_size": size}
        return {"locality_lb_config": {"zone_aware_lb_config": zone_aware}}

    def _localities(self) -> list[Json]:
        """LocalityLbEndpoints, one for each pair of priority and locality."""

        def place(endpoint: Endpoint) -> tuple[int, Locality]:
            return endpoint.priority, endpoint.locality

        return [
            {
                "priority": priority,
                "locality": {"region": locality.region, "zone": locality.zone, "sub_zone": locality.sub_zone},
                "lb_endpoints": [_endpoint(endpoint) for endpoint in members],
                **({"load_balancing_weight": weight} if (weight := self.locality_weights.get(locality)) else {}),
            }
            for (priority, locality), members in groupby(sorted(self.endpoints, key=place), key=place)
        ]


def static_bootstrap(
    clusters: Iterable[StaticCluster],
    *,
    hash_policies: Mapping[str, Json] | None = None,
    http_filters: Sequence[Json] = (),
    listen_on: str = "127.0.0.1",
    retry_policy: Json = None,
) -> dict[str, Json]:
    """A bootstrap with the clusters and the listener `ingress` on a free port.

    Arguments:
        hash_policies: RouteAction.hash_policy for requests whose path begins with `/NAME`, by that name.
        http_filters: to run before the router.
        listen_on: an IP; `::` takes IPv4 as well.
        retry_policy: of the virtual host, for every request.
    """
    by_prefix = {f"/{name}": policy for name, policy in (hash_policies or {}).items()}
    by_prefix["/"] = [{"header": {"header_name": "x-key"}}]
    routes = [
        {"match": {"prefix": prefix}, "route": {"cluster_header": "x-cluster", "hash_policy": policy}}
        for prefix, policy in by_prefix.items()
    ]
    router = {"name": "router", "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": {
            "response_headers_to_add": [{"header": {"key": "x-upstream", "value": "%UPSTREAM_HOST%"}}],
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes, "retry_policy": retry_policy}],
        },
        "http_filters": [*http_filters, router],
    }
    listener = {
        "name": "ingress",
        "address": {"socket_address": {"address": listen_on, "port_value": 0, "ipv4_compat": listen_on == "::"}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {
        "static_resources": {"listeners": [listener], "clusters": [cluster.envoy_json() for cluster in clusters]},
    }


def _endpoint(endpoint: Endpoint) -> dict[str, Json]:
    return {
        "endpoint": {"address": _address(endpoint.address), "hostname": endpoint.hostname},
        "health_status": endpoint.health.name,
        "load_balancing_weight": endpoint.weight,
        "metadata": {"filter_metadata": {"envoy.lb": dict(endpoint.metadata)}},
    }


def _address(address: str) -> dict[str, Json]:
    if address.startswith("unix:"):
        return {"pipe": {"path": address[len("unix:") :]}}
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _settings(policy: Policy) -> tuple[str, Mapping[str, Json]]:
    match policy:
        case RoundRobin():
            return "round_robin", {}
        case Random():
            return "random", {}
        case LeastRequest():
            return "least_request", {
                "choice_count": policy.choice_count,
                "selection_method": policy.selection_method.upper(),
            }
        case RingHash():
            return "ring_hash", {
                "minimum_ring_size": policy.minimum_ring_size,
                "maximum_ring_size": policy.maximum_ring_size,
                "hash_function": policy.hash_function.upper(),
                "consistent_hashing_lb_config": _consistent_hashing(policy),
            }
        case Maglev():
            return "maglev", {
                "table_size": policy.table_size,
                "consistent_hashing_lb_config": _consistent_hashing(policy),
            }
    raise TypeError(f"no Envoy configuration for {policy!r}")


def _consistent_hashing(policy: RingHash | Maglev) -> dict[str, Json]:
    settings: dict[str, Json] = {"use_hostname_for_hashing": policy.use_hostname_for_hashing}
    if policy.hash_balance_factor is not None:
        settings["hash_balance_factor"] = policy.hash_balance_factor
    return settings
