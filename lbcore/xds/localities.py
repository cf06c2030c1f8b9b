"""How a policy regards localities, for Envoy: by their weights, by zone, or not at all.

Envoy's switch to fail traffic in panic belongs to routing by zone; without that it is sent alone, and Envoys that know
their own cluster route by zone as they do by default. Source: Envoy load_balancing_policies/common/v3/common.proto.
"""

from __future__ import annotations

from envoy.extensions.load_balancing_policies.common.v3 import common_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import wrappers_pb2

from lbcore.settings import ZoneAware
from lbcore.snapshot import ServiceSnapshot

__all__ = ["BY_WEIGHT", "locality_config"]

_Zones = common_pb2.LocalityLbConfig.ZoneAwareLbConfig
_BASES = {"healthy_hosts_num": _Zones.HEALTHY_HOSTS_NUM, "healthy_hosts_weight": _Zones.HEALTHY_HOSTS_WEIGHT}

BY_WEIGHT = common_pb2.LocalityLbConfig.LocalityWeightedLbConfig()


def locality_config(service: ServiceSnapshot) -> common_pb2.LocalityLbConfig | None:
    """For policies that do not hash; those that do know weights of localities only."""
    if service.is_locality_weighted:
        return common_pb2.LocalityLbConfig(locality_weighted_lb_config=BY_WEIGHT)
    if isinstance(service.locality_policy, ZoneAware):
        zones = _zone_aware(service.locality_policy, service.fail_traffic_on_panic)
        return common_pb2.LocalityLbConfig(zone_aware_lb_config=zones)
    if service.fail_traffic_on_panic:
        return common_pb2.LocalityLbConfig(zone_aware_lb_config=_Zones(fail_traffic_on_panic=True))
    return None


def _zone_aware(setting: ZoneAware, fail_traffic_on_panic: bool) -> common_pb2.LocalityLbConfig.ZoneAwareLbConfig:
    message = _Zones(
        routing_enabled=percent_pb2.Percent(value=setting.routing_enabled),
        min_cluster_size=wrappers_pb2.UInt64Value(value=setting.min_cluster_size),
        fail_traffic_on_panic=setting.fail_traffic_on_panic or fail_traffic_on_panic,
        locality_basis=_BASES[setting.locality_basis],
    )
    if setting.force_local_zone_min_size is not None:
        message.force_local_zone.min_size.value = setting.force_local_zone_min_size
    return message
