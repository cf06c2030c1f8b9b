"""The picking policies: what each does, when to choose it, what it costs. Values; the native core carries them out.

Fields bear Envoy's own names and defaults (extensions/load_balancing_policies). Each value is checked when it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from lbcore.errors import Mistake
from lbcore.schema import Checked
from lbcore.settings import SlowStart
from lbcore.validation import UINT32_MAX, Interval, Number, Seconds, Whole, refusal, whole

__all__ = [
    "Adaptive",
    "Jump",
    "LeastRequest",
    "Maglev",
    "PeakEwma",
    "Policy",
    "Prequal",
    "Random",
    "Rendezvous",
    "RingHash",
    "RoundRobin",
]

MAX_RING_SIZE = 8_388_608  # ring_hash.proto: both bounds are capped at 8M points
UTILIZATIONS = ("application_utilization", "cpu_utilization", "mem_utilization")  # fields of LoadReport
MAX_TABLE_SIZE = 5_000_011  # maglev.proto: the largest prime it accepts

HashFunction = Literal["xx_hash", "murmur_hash_2"]
RingSize = Annotated[int, Whole(1, MAX_RING_SIZE)]
BalanceFactor = Annotated[int, Whole(100, UINT32_MAX)]


def table_size(value: object, field: str) -> int:
    """The size of a Maglev table: a prime, so that every step through it visits every slot."""
    size = whole(value, field, 2, MAX_TABLE_SIZE)
    if not is_prime(size):
        raise refusal(field, size, "expected a prime number")
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRobin(Checked):
    """Endpoints in turn, each as often as its weight says.

    Choose it when requests cost about the same and endpoints differ only by known weights; choose `LeastRequest` when
    either varies. A pick is O(1), an update O(sum of the reduced weights).

    Fields:
        slow_start: ramp for endpoints that have just joined.

    Source: Envoy round_robin; the order is a precomputed smooth schedule rather than a heap of deadlines.
    """

    slow_start: SlowStart | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Random(Checked):
    """An endpoint at random, each as likely as its weight says.

    Choose it when many clients without shared state must not fall into step. A pick is O(1) (alias table).

    Source: Envoy random; there it ignores weights.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastRequest(Checked):
    """The endpoint with the fewest requests in flight, among a few sampled or among all; use it through `acquire`.

    Choose it when requests differ in cost or endpoints in speed. A pick is O(choice_count), or O(endpoints) for a
    full scan.

    Fields:
        choice_count: endpoints sampled (with replacement), 2 to 100.
        selection_method: `n_choices` samples, `full_scan` looks at all and breaks ties at random.
        active_request_bias: with unequal weights the score is (active + 1) ** bias / weight; 0.0 or more.
        slow_start: ramp for endpoints that have just joined.

    Raises `InvalidSetting`. Source: Envoy least_request; with unequal weights lbcore compares scores where Envoy
    falls back to a weighted round robin.
    """

    choice_count: Annotated[int, Whole(2, 100)] = 2
    selection_method: Literal["n_choices", "full_scan"] = "n_choices"
    active_request_bias: Annotated[float, Number(0.0)] = 1.0
    slow_start: SlowStart | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakEwma(Checked):
    """The endpoint with the least latency x (requests in flight + 1), among a few sampled or among all.

    An endpoint's latency is a moving average that a slow answer raises at once and quick ones lower over `decay_time`.
    Use it through `acquire`: `Lease.done` measures the latency where it is not told. Choose it when endpoints differ in
    speed and say nothing of their load; `Adaptive` does better wherever it can be used. A pick is O(choice_count), or
    O(endpoints) for a full scan, and reads the clock.

    Fields:
        decay_time: seconds in which what was seen falls to 1/e of its weight.
        default_rtt: seconds, taken for an idle endpoint of which no latency is known.
        penalty_value: milliseconds, taken for one that has requests in flight and no latency known.
        error_penalty: an endpoint that fails is taken for as many times slower, times how much more of its answers fail
            than the fleet's; 0.0: its failures only never make it look quicker.
        choice_count: distinct endpoints sampled, 2 to 100.
        selection_method: `n_choices` samples, `full_scan` looks at all and breaks ties at random; after two picks in a
            row without `acquire` it draws at random, each endpoint the more often the less it costs.
        slow_start: ramp for endpoints that have just joined.

    Raises `InvalidSetting`. Source: Finagle PeakEwma, Envoy contrib peak_ewma. In lbcore an estimate decays on read
    only while its endpoint is idle, and takes at least ten times itself for it, and a failure never lowers it: so no
    endpoint is stampeded when its estimate has decayed, or because it fails fast.
    """

    decay_time: Interval = 10.0
    default_rtt: Interval = 0.01
    penalty_value: Annotated[float, Number(0.0)] = 1_000_000.0
    error_penalty: Annotated[float, Number(0.0)] = 30.0
    choice_count: Annotated[int, Whole(2, 100)] = 2
    selection_method: Literal["n_choices", "full_scan"] = "n_choices"
    slow_start: SlowStart | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive(Checked):
    """The endpoint with the least expected delay: its queue times how long it takes for a request, both learned.

    What `Cluster` does unless told otherwise; use it through `acquire`. It needs no settings: equal endpoints are
    served as by the shortest queue, slow or failing ones get what they can carry, and who recovers returns. Servers
    that report their requests in flight (`LoadReport.rif`) let many clients balance nearly as well as one. Where
    weights differ, an idle endpoint takes its turn by weight. A pick is O(endpoints / 32) and reads the clock;
    endpoints that are scattered over the cluster, as a subset's, are scanned one by one.

    `pick` alone counts no request: after two in a row endpoints take turns, each as often as it is quick.

    Fields:
        recovery_time: seconds in which what was learned of an endpoint falls to 1/e while it is not used; longer where
            a client sends so little that `memory` requests (20 at least) to each endpoint take longer.
        memory: requests that an endpoint's mean remembers; 5 to 1000. Best left near 20: fewer are noise; with many,
            clients are late to see the queues that they make together.
        sample_limit: times the mean that one request may count for; 1.0 or more.
        error_penalty: an endpoint that fails is taken for as many times slower, times how much more of its answers fail
            than of the others'; 1.0 or more.
        slow_start: ramp for endpoints that have just joined.

    Raises `InvalidSetting`. Sources: src_ext/adaptive.pxi names them.
    """

    recovery_time: Interval = 10.0
    memory: Annotated[float, Number(5.0, 1000.0)] = 20.0
    sample_limit: Annotated[float, Number(1.0)] = 3.0
    error_penalty: Annotated[float, Number(1.0)] = 30.0
    slow_start: SlowStart | None = None


def utilization_metrics(value: object, field: str) -> tuple[str, ...]:
    """Names of metrics in a load report: `named_metrics.NAME`, or a field that is a utilization."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise refusal(field, value, "expected a sequence of names")
    for name in value:
        known = isinstance(name, str) and (
            name in UTILIZATIONS or name.removeprefix("named_metrics.") not in ("", name)
        )
        if not known:
            raise refusal(field, name, f"expected named_metrics.NAME or one of {', '.join(UTILIZATIONS)}")
    return tuple(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSideWeightedRoundRobin(Checked):
    """Endpoints in turn, as often as their own load reports say that they can: by requests a second over utilization.

    Choose it where servers report utilization (ORCA: `Lease.done(load=LoadReport(...))`) and requests are many and
    short; where they report requests in flight, `Adaptive` reacts sooner. A pick is O(1) and reads the clock; new
    weights cost O(endpoints) once in `weight_update_period`, by `tick()` or the next pick.

    Fields:
        blackout_period: seconds for which an endpoint must have reported before its reports count.
        weight_expiration_period: seconds after its last report from which on they count no more.
        weight_update_period: seconds between two computations of all weights; 0.1 or more.
        error_utilization_penalty: how much the rate of errors adds to utilization: eps / qps times this.
        metric_names_for_computing_utilization: the largest of these is taken for utilization where one is above 0,
            before `application_utilization` and `cpu_utilization`: `named_metrics.NAME`, or a utilization by its field.
        slow_start: ramp for endpoints that have just joined.

    The weight is qps / (utilization + eps / qps x penalty); an endpoint without one gets the mean of the others', and
    with fewer than two known all have their own `weight`. Raises `InvalidSetting`. Source: gRFC A58 and A114, Envoy
    client_side_weighted_round_robin.
    """

    blackout_period: Annotated[float, Seconds(0.0)] = 10.0
    weight_expiration_period: Interval = 180.0
    weight_update_period: Annotated[float, Seconds(0.1)] = 1.0
    error_utilization_penalty: Annotated[float, Number(0.0)] = 1.0
    metric_names_for_computing_utilization: Annotated[Sequence[str], utilization_metrics] = ()
    slow_start: SlowStart | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prequal(Checked):
    """The least latency among endpoints that are not hot, by what probes have found of a few of them.

    Feed it: `Cluster.observe` takes what a probe has found, `lbcore.health.prober.Prober` sends them. Use it through
    `acquire`, by which probes age: `pick` alone takes the same endpoint until the next probe. Choose it where many
    clients share servers that can answer probes; where requests in flight come with the answers, `Adaptive` needs no
    probes. A pick is O(pool_size x log endpoints) and reads the clock. Weights count only where too few have been
    probed.

    Fields:
        pool_size: probes kept, one an endpoint.
        max_age: seconds for which a probe is used.
        probes_per_pick: how many come for each request, from which follows how often one may be used.
        removals_per_pick: probes dropped for each request, in turn the oldest and the worst.
        reuse_slack: how much more often a probe may be used than would keep the pool as full as it is.
        hot_quantile: of the requests in flight that probes found; who has more is hot. 0.0: the fewest in flight are
            picked, 1.0: the least latency.
        error_penalty: an endpoint that fails is taken for as many times slower, and as many requests busier, times
            how much more of its answers fail than the fleet's.

    Raises `InvalidSetting`. Source: "Load is not what you should balance: Introducing Prequal", NSDI 2024.
    """

    pool_size: Annotated[int, Whole(2, 1024)] = 16
    max_age: Interval = 1.0
    probes_per_pick: Annotated[float, Number(0.0)] = 3.0
    removals_per_pick: Annotated[float, Number(0.0, 1024.0)] = 1.0
    reuse_slack: Annotated[float, Number(0.0)] = 1.0
    hot_quantile: Annotated[float, Number(0.0, 1.0)] = 0.84
    error_penalty: Annotated[float, Number(0.0)] = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RingHash(Checked):
    """Consistent hashing on a ring: the same key goes to the same endpoint, as in Envoy and gRPC.

    Choose it for affinity when a change of membership must move as few keys as possible; `Maglev` is faster to build
    and spreads more evenly. A pick is O(1) on average; an update is O(ring size).

    Fields:
        minimum_ring_size, maximum_ring_size: points on the ring, 1 to 8388608; 16 bytes each.
        hash_function: `xx_hash` (XXH64, seed 0) or `murmur_hash_2`, for the points.
        point_layout: `envoy`, or `ketama`: 160 points an endpoint of average weight, points and keys hashed by MD5 as
            libketama and uhashring do, for caches that migrate from these; ring sizes and hash_function then do not
            matter, and neither Envoy nor gRPC can follow.
        use_hostname_for_hashing: hash `Endpoint.hostname` where there is one.
        hash_balance_factor: None, or 100 and more: no endpoint holds more than this percentage of the mean in flight.

    Raises `InvalidSetting`. Source: Envoy ring_hash (ring_hash_lb.cc), gRFC A42.
    """

    minimum_ring_size: RingSize = 1024
    maximum_ring_size: RingSize = MAX_RING_SIZE
    hash_function: HashFunction = "xx_hash"
    point_layout: Literal["envoy", "ketama"] = "envoy"
    use_hostname_for_hashing: bool = False
    hash_balance_factor: BalanceFactor | None = None

    def contradictions(self) -> Iterator[Mistake]:
        if self.minimum_ring_size > self.maximum_ring_size:
            yield Mistake(
                ("minimum_ring_size",),
                f"minimum_ring_size {self.minimum_ring_size}: "
                f"expected at most maximum_ring_size {self.maximum_ring_size}",
                see=("maximum_ring_size",),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Maglev(Checked):
    """Consistent hashing by Google's Maglev table: one load from memory a pick, shares even to about a percent.

    Choose it for affinity at the highest rate; a change of membership moves slightly more keys than `RingHash`.
    A pick is O(1); an update is O(table size).

    Fields:
        table_size: a prime, 2 to 5000011; best at 100 times the number of endpoints or more.
        use_hostname_for_hashing: hash `Endpoint.hostname` where there is one.
        hash_balance_factor: None, or 100 and more: no endpoint holds more than this percentage of the mean in flight.

    Raises `InvalidSetting`. Source: Envoy maglev (maglev_lb.cc); Eisenbud et al., NSDI 2016.
    """

    table_size: Annotated[int, table_size] = 65537
    use_hostname_for_hashing: bool = False
    hash_balance_factor: BalanceFactor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous(Checked):
    """Consistent hashing by highest random weight: shares exactly as the weights, and a change moves no key in vain.

    Choose it for affinity among up to some hundred endpoints, for exact weights, and for ordered fallbacks
    (`Cluster.rank` gives the key's own replicas). A pick is O(endpoints), vectorised; an update O(endpoints).

    Fields:
        use_hostname_for_hashing: hash `Endpoint.hostname` where there is one.
        hash_balance_factor: None, or 100 and more: no endpoint holds more than this percentage of the mean in flight.

    Raises `InvalidSetting`. Source: Thaler and Ravishankar 1998; weights: Schindelhauer and Schomaker 2005.
    """

    use_hostname_for_hashing: bool = False
    hash_balance_factor: BalanceFactor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump(Checked):
    """Consistent hashing onto numbered shards: endpoint i, in the order given, is shard i; weights do not count.

    Choose it where endpoints have numbers and come and go only at the end. A key whose shard is out is hashed again.
    A pick is O(log endpoints) and needs no table.

    Source: Lamping and Veach, arXiv:1406.2294.
    """


Policy = (
    RoundRobin
    | Random
    | LeastRequest
    | PeakEwma
    | Adaptive
    | ClientSideWeightedRoundRobin
    | Prequal
    | RingHash
    | Maglev
    | Rendezvous
    | Jump
)


def is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
