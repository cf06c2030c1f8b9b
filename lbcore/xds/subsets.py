"""Subsets as Envoy's subset policy, with the policy that picks within a subset inside. Source: Envoy subset.proto."""

from __future__ import annotations

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.load_balancing_policies.subset.v3 import subset_pb2
from google.protobuf.message import Message

from lbcore.subset import Subsets, SubsetSelector
from lbcore.xds.messages import struct

__all__ = ["subset_policy"]

_Message = subset_pb2.Subset


def subset_policy(subsets: Subsets, policy: cluster_pb2.LoadBalancingPolicy) -> Message:
    """The subset policy over another one."""
    message: Message = _Message(
        fallback_policy=_Message.LbSubsetFallbackPolicy.Value(subsets.fallback_policy.upper()),
        default_subset=struct(subsets.default_subset) if subsets.default_subset else None,
        subset_selectors=map(_selector, subsets.selectors),
        allow_redundant_keys=subsets.allow_redundant_keys,
        locality_weight_aware=subsets.locality_weight_aware,
        scale_locality_weight=subsets.scale_locality_weight,
        panic_mode_any=subsets.panic_mode_any,
        list_as_any=subsets.list_as_any,
        metadata_fallback_policy=_Message.LbSubsetMetadataFallbackPolicy.Value(
            subsets.metadata_fallback_policy.upper()
        ),
        subset_lb_policy=policy,
    )
    return message


def _selector(selector: SubsetSelector) -> Message:
    fallbacks = _Message.LbSubsetSelector.LbSubsetSelectorFallbackPolicy
    message: Message = _Message.LbSubsetSelector(
        keys=selector.keys,
        single_host_per_subset=selector.single_host_per_subset,
        fallback_policy=fallbacks.Value(selector.fallback_policy.upper()),
        fallback_keys_subset=selector.fallback_keys_subset,
    )
    return message
