"""Leases and registrations: who may change what, what silence does, and what it does not do."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from lbcore.errors import InvalidSetting, UnknownLease
from lbcore.model import Endpoint, Health, LoadReport
from lbcore.registration import Announcement, Key, RegistrySettings, Report
from lbcore.registry.table import Table
from tests.registry.clock import Clock

ONE, TWO, THREE = (f"10.0.0.{n}:80" for n in (1, 2, 3))
WEB = Key("web", ONE)
TTL = 15.0


class Scene:
    """A table, its clock, and short words for what agents do."""

    def __init__(self, **settings: float) -> None:
        self.clock = Clock()
        self.table = Table(RegistrySettings(**settings), self.clock)  # type: ignore[arg-type]

    def agent(self, *addresses: str, service: str = "web", lease: int = 0, **endpoint: object) -> int:
        announcements = [Announcement(service, Endpoint(address, **endpoint)) for address in addresses]  # type: ignore[arg-type]
        return self.table.register(lease, TTL, announcements).lease

    def pass_time(self, seconds: float, beating: Iterable[int] = ()) -> None:
        """Lets time pass while some leases are kept."""
        steps = max(1, round(seconds / 1.0))
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            for lease in beating:
                self.table.heartbeat(lease)
            self.table.sweep()

    def addresses(self, service: str = "web") -> set[str]:
        return {each.endpoint.address for each in self.table.registrations(service)}


def test_what_is_announced_is_registered_with_all_that_was_said_of_it() -> None:
    scene = Scene()
    lease = scene.agent(ONE, weight=3, locality="eu/a", metadata={"version": "2"})
    [found] = scene.table.registrations("web")
    assert found.endpoint == Endpoint(ONE, weight=3, locality="eu/a", metadata={"version": "2"})
    assert (found.lease, found.stale, found.held) == (lease, False, False)


def test_a_time_to_live_beyond_the_limits_is_refused_by_name_and_changes_nothing() -> None:
    scene = Scene(min_ttl=2.0, max_ttl=20.0)
    for asked in (1.9, 20.1):
        with pytest.raises(InvalidSetting, match=rf"^ttl {asked}: expected a number, 2 or more, at most 20$"):
            scene.table.register(0, asked, [])
    assert (scene.table.revision, scene.table.leases) == (0, {})
    lease = scene.table.register(0, 2.0, []).lease
    with pytest.raises(InvalidSetting, match=r"^ttl 30"):
        scene.table.register(lease, 30.0, [])
    assert scene.table.leases[lease].ttl == 2.0


def test_one_lease_carries_many_endpoints() -> None:
    scene = Scene()
    lease = scene.agent(ONE, TWO)
    assert scene.agent(THREE, service="api", lease=lease) == lease
    scene.pass_time(60, [lease])
    assert (scene.addresses("web"), scene.addresses("api")) == ({ONE, TWO}, {THREE})


def test_a_lease_that_runs_out_takes_its_endpoints_along_and_no_others() -> None:
    scene = Scene()
    scene.agent(ONE)
    alive = scene.agent(TWO)
    scene.pass_time(TTL - 1, [alive])
    before = scene.addresses()
    scene.pass_time(2, [alive])
    assert (before, scene.addresses()) == ({ONE, TWO}, {TWO})


def test_a_lease_that_ran_out_is_unknown() -> None:
    scene = Scene()
    lease = scene.agent(ONE)
    scene.pass_time(TTL + 1)
    with pytest.raises(UnknownLease):
        scene.table.heartbeat(lease)


def test_a_newer_lease_takes_an_address_over() -> None:
    scene = Scene()
    scene.agent(ONE, weight=1)
    newer = scene.agent(ONE, weight=2)
    [found] = scene.table.registrations()
    assert (found.lease, found.endpoint.weight) == (newer, 2)


def test_an_older_lease_gets_its_address_back_only_when_the_newer_one_has_ended() -> None:
    scene = Scene()
    older = scene.agent(ONE, weight=1)
    newer = scene.agent(ONE, weight=2)
    refused = scene.table.register(older, None, [Announcement("web", Endpoint(ONE, weight=1))]).superseded
    scene.table.revoke(newer)
    granted = scene.table.register(older, None, [Announcement("web", Endpoint(ONE, weight=1))]).superseded
    assert (refused, granted, scene.addresses()) == ((WEB,), (), {ONE})


def test_the_end_of_an_old_lease_leaves_what_a_newer_one_has() -> None:
    scene = Scene()
    older, newer = scene.agent(ONE), scene.agent(ONE)
    assert scene.table.deregister(older, [WEB]).superseded == (WEB,)
    scene.table.revoke(older)
    scene.pass_time(TTL + 1, [newer])
    assert scene.addresses() == {ONE}


def test_an_old_lease_reports_nothing_of_what_a_newer_one_has() -> None:
    scene = Scene()
    older, _ = scene.agent(ONE), scene.agent(ONE)
    assert scene.table.heartbeat(older, [Report(WEB, Health.UNHEALTHY)]).superseded == (WEB,)
    assert [each.endpoint.health for each in scene.table.registrations()] == [Health.UNKNOWN]


def test_a_write_that_was_overtaken_changes_nothing() -> None:
    scene = Scene()
    lease = scene.table.register(0, TTL, [Announcement("web", Endpoint(ONE, weight=1))], sequence=1).lease
    scene.table.register(lease, None, [Announcement("web", Endpoint(ONE, weight=3))], sequence=3)
    late = scene.table.register(lease, None, [Announcement("web", Endpoint(ONE, weight=2))], sequence=2)
    assert (late.superseded, [each.endpoint.weight for each in scene.table.registrations()]) == ((WEB,), [3])


def test_a_write_that_a_withdrawal_overtook_changes_nothing() -> None:
    scene = Scene()
    lease = scene.table.register(0, TTL, [Announcement("web", Endpoint(ONE))], sequence=1).lease
    scene.table.deregister(lease, [WEB], sequence=3)
    scene.table.register(lease, None, [Announcement("web", Endpoint(ONE))], sequence=2)
    assert scene.addresses() == set()


def test_a_heartbeat_carries_health_and_load() -> None:
    scene = Scene()
    lease = scene.agent(ONE)
    before = scene.table.revision
    scene.table.heartbeat(lease, [Report(WEB, Health.DEGRADED, LoadReport(rif=3))])
    [found] = scene.table.registrations()
    assert (found.endpoint.health, found.load) == (Health.DEGRADED, LoadReport(rif=3))
    assert scene.table.revision == before + 1


def test_load_alone_is_no_change_to_readers() -> None:
    scene = Scene()
    lease = scene.agent(ONE)
    scene.table.take_changes()
    scene.table.heartbeat(lease, [Report(WEB, load=LoadReport(rif=3))])
    assert scene.table.take_changes() == ([], [])


def test_a_drain_holds_whatever_the_agent_says_until_it_is_undone() -> None:
    scene = Scene()
    lease = scene.agent(ONE)
    scene.table.drain(lease, WEB, True)
    scene.table.heartbeat(lease, [Report(WEB, Health.HEALTHY)])
    scene.agent(ONE, lease=lease, weight=2)
    drained = [each.endpoint.health for each in scene.table.registrations()]
    scene.table.heartbeat(lease, [Report(WEB, Health.HEALTHY)])
    scene.table.drain(lease, WEB, False)
    assert (drained, [each.endpoint.health for each in scene.table.registrations()]) == (
        [Health.DRAINING],
        [Health.HEALTHY],
    )


def test_a_drain_ends_with_the_lease() -> None:
    scene = Scene()
    scene.table.drain(scene.agent(ONE), WEB, True)
    scene.agent(ONE)
    assert [each.endpoint.health for each in scene.table.registrations()] == [Health.UNKNOWN]


def test_the_same_announcement_again_is_no_change() -> None:
    scene = Scene()
    lease = scene.agent(ONE, metadata={"a": 1})
    scene.table.take_changes()
    scene.agent(ONE, lease=lease, metadata={"a": 1})
    assert scene.table.take_changes() == ([], [])


@pytest.mark.parametrize(
    ("announcement", "expected"),
    [
        (Announcement("a b", Endpoint(TWO)), r"announcements\[1\].service: service 'a b'"),
        (Announcement("web", Endpoint("db.internal:80")), r"announcements\[1\].address: address 'db.internal:80'"),
        (Announcement("web", Endpoint(TWO, metadata={"a": float("nan")})), r"announcements\[1\].metadata"),
        (
            Announcement("web", Endpoint(TWO, metadata={"a": "x" * 70_000})),
            r"announcements\[1\].metadata: metadata: 70008 bytes",
        ),
        (Announcement("web", Endpoint(TWO, hostname="x" * 2000)), r"announcements\[1\].hostname"),
        (Announcement("web", Endpoint(TWO, weight=2**32 - 1)), "weight: those of service 'web', priority 0"),
        (Announcement("web", Endpoint(ONE)), "address '10.0.0.1:80': expected each address of a service once"),
    ],
)
def test_what_would_break_a_client_is_refused_whole(announcement: Announcement, expected: str) -> None:
    scene = Scene()
    with pytest.raises(InvalidSetting, match=expected):
        scene.table.register(0, None, [Announcement("web", Endpoint(ONE)), announcement])
    assert (scene.addresses(), scene.table.leases) == (set(), {})


def test_weights_that_go_make_room_for_others() -> None:
    scene = Scene()
    lease = scene.agent(ONE, weight=2**32 - 1)
    scene.agent(ONE, lease=lease, weight=2**32 - 2)
    scene.agent(TWO, weight=1)
    scene.table.deregister(lease, [WEB])
    scene.agent(THREE, weight=2**32 - 2)
    assert scene.addresses() == {TWO, THREE}


def ten(scene: Scene) -> list[int]:
    return [scene.agent(f"10.0.1.{n}:80") for n in range(10)]


def test_when_nine_of_ten_leases_fall_silent_together_all_are_held_and_marked() -> None:
    scene = Scene()
    alive, *silent = ten(scene)
    for late in range(9):  # each is heard of for the last time within one heartbeat's interval
        scene.pass_time(0.5, [alive, *silent[late:]])
    scene.pass_time(5 * TTL, [alive])
    held = {each.endpoint.address for each in scene.table.registrations() if each.held}
    assert (len(scene.addresses()), len(held), scene.table.held) == (10, 9, {"web": 9})


def test_r3_nothing_disappears_at_any_time_of_a_mass_loss() -> None:
    scene = Scene()
    alive, *silent = ten(scene)
    for late in range(9):
        scene.pass_time(0.5, [alive, *silent[late:]])
    for _ in range(300):
        scene.pass_time(0.2, [alive])
        assert len(scene.addresses()) == 10


def test_four_of_ten_leases_that_fall_silent_go() -> None:
    scene = Scene()
    leases = ten(scene)
    scene.pass_time(TTL + 1, leases[4:])
    assert (len(scene.addresses()), scene.table.held) == (6, {})


def test_what_is_deregistered_goes_even_while_most_is_held() -> None:
    scene = Scene()
    leases = ten(scene)
    scene.pass_time(2 * TTL, leases[:1])
    for number, lease in enumerate(leases[1:], 1):
        scene.table.deregister(lease, [Key("web", f"10.0.1.{number}:80")])
    assert scene.addresses() == {"10.0.1.0:80"}


def test_held_leases_that_are_heard_of_again_are_as_before() -> None:
    scene = Scene()
    leases = ten(scene)
    scene.pass_time(2 * TTL, leases[:1])
    scene.pass_time(2 * TTL, leases)
    assert (len(scene.addresses()), scene.table.held) == (10, {})
    assert not any(each.held for each in scene.table.registrations())


def test_when_most_of_the_held_are_back_the_others_have_as_long_as_a_lease_lasts() -> None:
    scene = Scene()
    leases = ten(scene)
    scene.pass_time(2 * TTL, leases[:1])
    scene.pass_time(TTL - 2, leases[:8])
    before = len(scene.addresses())
    scene.pass_time(4, leases[:8])
    assert (before, len(scene.addresses()), scene.table.held) == (10, 8, {})


def test_a_few_leases_are_each_judged_alone() -> None:
    scene = Scene()
    for address in (ONE, TWO, THREE):
        scene.agent(address)
    scene.pass_time(TTL + 1)
    assert scene.addresses() == set()


def test_time_in_which_the_registry_did_not_listen_does_not_count() -> None:
    scene = Scene()
    scene.agent(ONE)
    scene.clock.advance(TTL + 5)
    scene.table.forgive(TTL + 5)
    scene.table.sweep()
    assert scene.addresses() == {ONE}


def test_a_held_lease_gives_its_address_even_to_an_older_one() -> None:
    scene = Scene()
    older, *silent = ten(scene)
    scene.pass_time(2 * TTL, [older])
    address = "10.0.1.5:80"
    assert scene.table.register(older, None, [Announcement("web", Endpoint(address))]).superseded == ()
    assert silent[4] not in {each.lease for each in scene.table.registrations() if each.endpoint.address == address}
