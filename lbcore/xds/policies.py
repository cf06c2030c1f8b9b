"""Picking policies as the `LoadBalancingPolicy` lists that Envoy and gRPC read: each takes the first entry it knows.

Envoy gets exactly the policy asked for, and Maglev for the kinds of consistent hashing that it does not have. gRPC gets
what serves the policy's purpose best among what gRPC implementations have, and at the end always round_robin, which all
of them have.
Sources: Envoy extensions/load_balancing_policies; gRFC A42, A48, A52; gRPC xds_lb_policy_registry.cc.
"""

from __future__ import annotations

from collections.abc import Sequence

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3 import (
    client_side_weighted_round_robin_pb2,
)
from envoy.extensions.load_balancing_policies.common.v3 import common_pb2
from envoy.extensions.load_balancing_policies.least_request.v3 import least_request_pb2
from envoy.extensions.load_balancing_policies.maglev.v3 import maglev_pb2
from envoy.extensions.load_balancing_policies.random.v3 import random_pb2
from envoy.extensions.load_balancing_policies.ring_hash.v3 import ring_hash_pb2
from envoy.extensions.load_balancing_policies.round_robin.v3 import round_robin_pb2
from envoy.extensions.load_balancing_policies.wrr_locality.v3 import wrr_locality_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import wrappers_pb2
from google.protobuf.message import Message

from lbcore.policy import (
    Adaptive,
    ClientSideWeightedRoundRobin,
    Jump,
    LeastRequest,
    Maglev,
    PeakEwma,
    Policy,
    Prequal,
    Random,
    Rendezvous,
    RingHash,
    RoundRobin,
)
from lbcore.settings import SlowStart
from lbcore.snapshot import ServiceSnapshot
from lbcore.xds.localities import BY_WEIGHT, locality_config
from lbcore.xds.messages import duration, packed
from lbcore.xds.subsets import subset_policy

__all__ = ["envoy_policy", "grpc_policy"]

_HASH_FUNCTIONS = {
    "xx_hash": ring_hash_pb2.RingHash.XX_HASH,
    "murmur_hash_2": ring_hash_pb2.RingHash.MURMUR_HASH_2,
}
_SELECTION_METHODS = {
    "n_choices": least_request_pb2.LeastRequest.N_CHOICES,
    "full_scan": least_request_pb2.LeastRequest.FULL_SCAN,
}


def envoy_policy(service: ServiceSnapshot) -> cluster_pb2.LoadBalancingPolicy:
    """The service's policy with all its settings, below the choice of a subset where it has subsets."""
    policies = _policies([_envoy_message(service.policy, locality_config(service), service.is_locality_weighted)])
    if service.subsets is None:
        return policies
    return _policies([subset_policy(service.subsets, policies)])


def grpc_policy(service: ServiceSnapshot) -> cluster_pb2.LoadBalancingPolicy:
    """The nearest that gRPC has, ending in round_robin.

    gRPC has consistent hashing only as a ring with XXH64, so all of its kinds become that. Its ring takes locality
    weights by itself; the other policies are put below one that picks the locality. It has no subsets and no zones.
    """
    policy = service.policy
    match policy:
        case RingHash():
            nearest = [_grpc_ring(policy.minimum_ring_size, policy.maximum_ring_size)]
        case Maglev() | Rendezvous() | Jump():
            nearest = [_grpc_ring(RingHash().minimum_ring_size, RingHash().maximum_ring_size)]
        case LeastRequest():
            nearest = [least_request_pb2.LeastRequest(choice_count=_uint32(policy.choice_count))]
        case ClientSideWeightedRoundRobin():
            nearest = [_client_side_weights(policy)]
        case PeakEwma() | Adaptive() | Prequal():
            nearest = [least_request_pb2.LeastRequest(choice_count=_uint32(_least_request(policy).choice_count))]
        case Random() | RoundRobin():
            nearest = []
    inner = [*nearest, round_robin_pb2.RoundRobin()]
    if service.is_locality_weighted and not isinstance(policy, RingHash | Maglev | Rendezvous | Jump):
        return _policies([wrr_locality_pb2.WrrLocality(endpoint_picking_policy=_policies(inner)), *inner])
    return _policies(inner)


def _envoy_message(policy: Policy, by_locality: common_pb2.LocalityLbConfig | None, locality_weighted: bool) -> Message:
    message: Message
    match policy:
        case RoundRobin():
            message = round_robin_pb2.RoundRobin(
                slow_start_config=_slow_start(policy.slow_start), locality_lb_config=by_locality
            )
        case Random():
            message = random_pb2.Random(locality_lb_config=by_locality)
        case LeastRequest():
            message = least_request_pb2.LeastRequest(
                choice_count=_uint32(policy.choice_count),
                selection_method=_SELECTION_METHODS[policy.selection_method],
                active_request_bias=_active_request_bias(policy),
                slow_start_config=_slow_start(policy.slow_start),
                locality_lb_config=by_locality,
            )
        case ClientSideWeightedRoundRobin():
            message = _client_side_weights(policy)
        case PeakEwma() | Adaptive() | Prequal():
            message = _envoy_message(_least_request(policy), by_locality, locality_weighted)
        case RingHash():
            message = ring_hash_pb2.RingHash(
                hash_function=_HASH_FUNCTIONS[policy.hash_function],
                minimum_ring_size=_uint64(policy.minimum_ring_size),
                maximum_ring_size=_uint64(policy.maximum_ring_size),
                consistent_hashing_lb_config=_consistent_hashing(policy),
                locality_weighted_lb_config=BY_WEIGHT if locality_weighted else None,
            )
        case Maglev():
            message = _maglev(policy, locality_weighted)
        case Rendezvous():
            nearest = Maglev(
                use_hostname_for_hashing=policy.use_hostname_for_hashing,
                hash_balance_factor=policy.hash_balance_factor,
            )
            message = _maglev(nearest, locality_weighted)
        case Jump():
            message = _maglev(Maglev(), locality_weighted)
    return message


def _client_side_weights(policy: ClientSideWeightedRoundRobin) -> Message:
    message: Message = client_side_weighted_round_robin_pb2.ClientSideWeightedRoundRobin(
        blackout_period=duration(policy.blackout_period),
        weight_expiration_period=duration(policy.weight_expiration_period),
        weight_update_period=duration(policy.weight_update_period),
        error_utilization_penalty=wrappers_pb2.FloatValue(value=policy.error_utilization_penalty),
        metric_names_for_computing_utilization=policy.metric_names_for_computing_utilization,
        slow_start_config=_slow_start(policy.slow_start),
    )
    return message


def _least_request(policy: PeakEwma | Adaptive | Prequal) -> LeastRequest:
    """What comes nearest where nobody measures latencies or probes."""
    if isinstance(policy, PeakEwma):
        return LeastRequest(
            choice_count=policy.choice_count,
            selection_method=policy.selection_method,
            slow_start=policy.slow_start,
        )
    if isinstance(policy, Prequal):
        return LeastRequest()
    return LeastRequest(selection_method="full_scan", slow_start=policy.slow_start)


def _maglev(policy: Maglev, locality_weighted: bool) -> Message:
    message: Message = maglev_pb2.Maglev(
        table_size=_uint64(policy.table_size),
        consistent_hashing_lb_config=_consistent_hashing(policy),
        locality_weighted_lb_config=BY_WEIGHT if locality_weighted else None,
    )
    return message


def _active_request_bias(policy: LeastRequest) -> base_pb2.RuntimeDouble | None:
    """Only where set: its presence makes Envoy weigh hosts even if all weights are equal (least_request_lb.cc)."""
    if policy.active_request_bias == LeastRequest().active_request_bias:
        return None
    return _runtime_double(policy.active_request_bias, "active_request_bias")


def _grpc_ring(minimum_size: int, maximum_size: int) -> ring_hash_pb2.RingHash:
    return ring_hash_pb2.RingHash(
        hash_function=ring_hash_pb2.RingHash.XX_HASH,
        minimum_ring_size=_uint64(minimum_size),
        maximum_ring_size=_uint64(maximum_size),
    )


def _consistent_hashing(policy: RingHash | Maglev) -> common_pb2.ConsistentHashingLbConfig:
    factor = policy.hash_balance_factor
    return common_pb2.ConsistentHashingLbConfig(
        use_hostname_for_hashing=policy.use_hostname_for_hashing,
        hash_balance_factor=None if factor is None else _uint32(factor),
    )


def _slow_start(setting: SlowStart | None) -> common_pb2.SlowStartConfig | None:
    if setting is None:
        return None
    return common_pb2.SlowStartConfig(
        slow_start_window=duration(setting.slow_start_window),
        aggression=_runtime_double(setting.aggression, "aggression"),
        min_weight_percent=percent_pb2.Percent(value=setting.min_weight_percent),
    )


def _policies(messages: Sequence[Message]) -> cluster_pb2.LoadBalancingPolicy:
    return cluster_pb2.LoadBalancingPolicy(
        policies=[
            cluster_pb2.LoadBalancingPolicy.Policy(
                typed_extension_config=extension_pb2.TypedExtensionConfig(
                    name=message.DESCRIPTOR.full_name, typed_config=packed(message)
                )
            )
            for message in messages
        ]
    )


def _runtime_double(value: float, name: str) -> base_pb2.RuntimeDouble:
    return base_pb2.RuntimeDouble(default_value=value, runtime_key=f"lbcore.{name}")  # Envoy refuses an empty key


def _uint32(value: int) -> wrappers_pb2.UInt32Value:
    return wrappers_pb2.UInt32Value(value=value)


def _uint64(value: int) -> wrappers_pb2.UInt64Value:
    return wrappers_pb2.UInt64Value(value=value)
