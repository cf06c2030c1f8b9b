"""What tells the core of endpoints and of how requests ended takes anything as well; and so do its settings."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore import (
    CircuitBreakers,
    Cluster,
    DeterministicSubsetting,
    LoadReport,
    OutlierDetection,
    Policy,
    RandomSubsetting,
    RetryBudget,
    SlowStart,
    VirtualClock,
    ZoneAware,
)
from lbcore.model import CheckedHealth
from tests.core.anything import anything, survives
from tests.core.fleets import fleet

POLICY_TYPES: tuple[Any, ...] = get_args(Policy)
policies = st.sampled_from(POLICY_TYPES)

KNOWN = fleet(3)[0].address
NEEDED: dict[str, Any] = {
    "client_index": 1,
    "client_count": 3,
    "seed": 7,
    "slow_start_window": 10.0,
    "local_hosts": {"a": 1},
}
# Large rings and tables take seconds, and are no mistake.
BOUNDED = {"maximum_ring_size": 4096}


def with_field(kind: Any, field: str, value: Any) -> Any:
    """Of this kind with one field as given, and valid ones where it has no default."""
    needed = {each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING}
    bounded = {name: bound for name, bound in BOUNDED.items() if name in {each.name for each in fields(kind)}}
    return kind(**{name: NEEDED[name] for name in needed} | bounded | {field: value})


def fields_of(*kinds: Any) -> st.SearchStrategy[tuple[Any, str]]:
    all_fields = [(kind, each.name) for kind in kinds for each in fields(kind)]
    return st.sampled_from([(kind, name) for kind, name in all_fields if name != "event_log_path"])  # a file


def use(cluster: Cluster) -> None:
    """A little of everything that a setting has a say in."""
    cluster.pick("key")
    cluster.acquire().done(status=503)
    cluster.acquire().done(load=LoadReport(rif=2, cpu_utilization=0.5, rps_fractional=10.0), latency=0.1)
    cluster.acquire("key").done(ok=False)
    with cluster.retry_permit(), cluster.acquire():
        cluster.pick_many(5)
    cluster.tick()
    cluster.update(fleet(4))
    cluster.rank("key", 2)
    cluster.stats()
    cluster.explain("key")


@settings(max_examples=100)
@given(fields_of(*POLICY_TYPES), anything)
def test_a_policy_takes_anything_as_a_field(named: tuple[Any, str], value: Any) -> None:
    survives(lambda: use(Cluster("fuzz", fleet(3), policy=with_field(*named, value), clock=VirtualClock())))


@settings(max_examples=100)
@given(fields_of(OutlierDetection, CircuitBreakers, RetryBudget, SlowStart, ZoneAware), anything)
def test_other_settings_take_anything_as_a_field(named: tuple[Any, str], value: Any) -> None:
    def make_and_use() -> None:
        made = with_field(*named, value)
        where: dict[type, dict[str, Any]] = {
            OutlierDetection: {"outlier_detection": made},
            CircuitBreakers: {"circuit_breakers": made},
            RetryBudget: {"circuit_breakers": CircuitBreakers(retry_budget=made) if named[0] is RetryBudget else None},
            SlowStart: {"policy": POLICY_TYPES[0](slow_start=made) if named[0] is SlowStart else None},
            ZoneAware: {"locality_policy": made, "local_locality": "a"},
        }
        use(Cluster("fuzz", fleet(3), clock=VirtualClock(), **where[named[0]]))

    survives(make_and_use)


@settings(max_examples=100)
@given(fields_of(DeterministicSubsetting, RandomSubsetting), anything)
def test_subsetting_takes_anything_as_a_field(named: tuple[Any, str], value: Any) -> None:
    survives(lambda: use(Cluster("fuzz", fleet(30), subsetting=with_field(*named, value))))


@settings(max_examples=100)
@given(policies, anything, anything)
def test_probes_and_checks_tell_of_anything(policy: Any, first: Any, second: Any) -> None:
    cluster = Cluster("fuzz", fleet(3), policy=policy(), outlier_detection=OutlierDetection())
    survives(lambda: cluster.observe(first, LoadReport()))
    survives(lambda: cluster.observe(KNOWN, first, latency=second))
    survives(lambda: cluster.observe(KNOWN, LoadReport(rif=3), latency=second))
    survives(lambda: cluster.apply_checks(first))
    survives(lambda: cluster.apply_checks({KNOWN: first}))
    survives(lambda: cluster.apply_checks({first: CheckedHealth(passing=False)}))
    survives(lambda: cluster.passed_check(first))
    survives(lambda: cluster.set_health(KNOWN, True, degraded=first, excluded=second))
    cluster.apply_checks({KNOWN: CheckedHealth()})
    cluster.tick()
    assert cluster.pick("key") in cluster.endpoints


@settings(max_examples=100)
@given(st.sampled_from([each.name for each in fields(LoadReport)]), anything)
def test_a_load_report_takes_anything_as_a_field(field: str, value: Any) -> None:
    def report_and_finish() -> None:
        report = LoadReport(**{field: value})
        for policy in POLICY_TYPES:
            cluster = Cluster("fuzz", fleet(3), policy=policy())
            cluster.observe(KNOWN, report, latency=0.1)
            cluster.acquire("key").done(load=report)
            cluster.tick()

    survives(report_and_finish)


@settings(max_examples=100)
@given(anything, anything, anything, anything)
def test_a_lease_ends_once_whatever_its_block_raised(kind: Any, error: Any, trace: Any, more: Any) -> None:
    cluster = Cluster("fuzz", fleet(3))
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        *(((kind, error, trace), {}), ((kind,), {}), ((kind, error, trace, more), {})),
        *(((), {"kind": kind, "error": error, "traceback": trace}), ((None, error, trace), {"kind": more})),
    ]
    for positional, named in calls:
        lease = cluster.acquire()
        survives(lambda: lease.__exit__(*positional, **named))  # noqa: B023
        lease.done()
        assert cluster.stats().active == 0


@settings(max_examples=100)
@given(anything, anything)
def test_permits_and_views_take_anything(first: Any, second: Any) -> None:
    cluster = Cluster("fuzz", fleet(3), circuit_breakers=CircuitBreakers(max_retries=1))
    for permit in (cluster.retry_permit(), cluster.pending_permit(), cluster.connection_permit()):
        survives(lambda: permit.__exit__(first, second, None))  # noqa: B023
        permit.release()
    cluster.retry_permit().release()
    survives(lambda: cluster.handle(local_locality=first).pick())
    survives(lambda: cluster.subset(first, local_locality=second).pick())
    assert cluster.pick() in cluster.endpoints


@settings(max_examples=100)
@given(anything, st.lists(anything, max_size=4))
def test_a_virtual_clock_takes_anything_as_time(start: Any, steps: list[Any]) -> None:
    def run() -> None:
        clock = VirtualClock(start)
        cluster = Cluster("fuzz", fleet(3), outlier_detection=OutlierDetection(), clock=clock)
        for step in steps:
            survives(lambda: clock.advance(step))  # noqa: B023
            survives(lambda: setattr(clock, "now", step))  # noqa: B023
            cluster.acquire().done(ok=False)
            cluster.tick()
        assert clock() == clock.now

    survives(run)
