"""What checks find, over what discovery says; and how the Directory keeps the two apart."""

from __future__ import annotations

import pytest

from lbcore.directory import Directory
from lbcore.findings import Findings, checked
from lbcore.model import CheckedHealth, Endpoint, Health
from lbcore.snapshot import ServiceSnapshot

A, B = "10.0.0.1:80", "10.0.0.2:80"
PASSES = CheckedHealth()
FAILS = CheckedHealth(passing=False)


def web(*endpoints: Endpoint | str) -> ServiceSnapshot:
    return ServiceSnapshot(
        name="web", endpoints=tuple(Endpoint(each) if isinstance(each, str) else each for each in endpoints)
    )


def healths(service: ServiceSnapshot) -> dict[str, Health]:
    return {endpoint.address: endpoint.health for endpoint in service.endpoints}


@pytest.mark.parametrize(
    ("said", "found", "health"),
    [
        (Health.UNKNOWN, PASSES, Health.HEALTHY),
        (Health.HEALTHY, PASSES, Health.HEALTHY),
        (Health.DEGRADED, PASSES, Health.DEGRADED),
        (Health.UNHEALTHY, PASSES, Health.UNHEALTHY),
        (Health.TIMEOUT, PASSES, Health.TIMEOUT),
        (Health.DRAINING, PASSES, Health.DRAINING),
        (Health.UNKNOWN, FAILS, Health.UNHEALTHY),
        (Health.HEALTHY, FAILS, Health.UNHEALTHY),
        (Health.DEGRADED, FAILS, Health.UNHEALTHY),
        (Health.DRAINING, FAILS, Health.DRAINING),
        (Health.HEALTHY, CheckedHealth(degraded=True), Health.DEGRADED),
        (Health.UNHEALTHY, CheckedHealth(degraded=True), Health.UNHEALTHY),
        (Health.HEALTHY, CheckedHealth(passing=False, excluded=True), Health.DRAINING),
    ],
)
def test_an_endpoint_must_please_discovery_and_checks(said: Health, found: CheckedHealth, health: Health) -> None:
    service = web(Endpoint(A, health=said))
    assert healths(checked(service, Findings({A: found}))) == {A: health}


def test_what_is_not_checked_in_the_first_round_stays_as_discovery_says() -> None:
    assert healths(checked(web(A, B), Findings({A: FAILS}))) == {A: Health.UNHEALTHY, B: Health.UNKNOWN}


def test_what_joins_later_waits_for_its_first_check() -> None:
    assert healths(checked(web(A, B), Findings({A: PASSES}, hold_new=True)))[B] is Health.UNHEALTHY


def test_but_not_where_nobody_has_passed_that_could_stand_in() -> None:
    assert healths(checked(web(A, B), Findings({A: FAILS}, hold_new=True)))[B] is Health.UNKNOWN


def test_a_service_without_findings_of_its_own_is_itself() -> None:
    service = web(Endpoint(A, health=Health.HEALTHY))
    assert checked(service, Findings({A: PASSES})) is service


class TestDirectory:
    @pytest.fixture
    def directory(self) -> Directory:
        directory = Directory()
        directory.publish("file", [web(A, B)])
        return directory

    def test_findings_change_the_health_to_act_upon_and_not_what_was_said(self, directory: Directory) -> None:
        assert directory.lay_over("web", Findings({A: FAILS}))
        assert healths(directory.current.services["web"])[A] is Health.UNHEALTHY
        assert healths(directory.current.said["web"])[A] is Health.UNKNOWN

    def test_findings_that_change_nothing_keep_the_object(self, directory: Directory) -> None:
        directory.lay_over("web", Findings({A: FAILS}))
        service = directory.current.services["web"]
        assert not directory.lay_over("web", Findings({A: CheckedHealth(passing=False, reason="status 503")}))
        assert directory.current.services["web"] is service
        assert directory.current.findings["web"].by_address[A].reason == "status 503"

    def test_endpoints_whose_health_stays_stay_the_same_objects(self, directory: Directory) -> None:
        directory.lay_over("web", Findings({A: PASSES, B: PASSES}))
        kept = directory.current.services["web"].endpoints[1]
        directory.lay_over("web", Findings({A: FAILS, B: PASSES}))
        assert directory.current.services["web"].endpoints[1] is kept
        directory.lay_over("web", Findings({A: FAILS, B: FAILS}))
        assert healths(directory.current.services["web"]) == {A: Health.UNHEALTHY, B: Health.UNHEALTHY}
        directory.publish("file", [web(B, A)])
        assert list(healths(directory.current.services["web"])) == [B, A]

    def test_findings_survive_what_sources_publish(self, directory: Directory) -> None:
        directory.lay_over("web", Findings({A: FAILS}))
        directory.publish("file", [web(A)])
        assert healths(directory.current.services["web"]) == {A: Health.UNHEALTHY}
        directory.publish("file", [web(Endpoint(A, weight=2))])
        assert healths(directory.current.services["web"]) == {A: Health.UNHEALTHY}

    def test_a_removal_is_a_removal_whatever_was_found(self, directory: Directory) -> None:
        directory.lay_over("web", Findings({A: PASSES, B: PASSES}))
        directory.publish("file", [web(B)])
        assert list(healths(directory.current.services["web"])) == [B]
        directory.publish("file", [])
        assert not directory.current.services

    def test_without_findings_the_word_of_discovery_holds_again(self, directory: Directory) -> None:
        directory.lay_over("web", Findings({A: FAILS}))
        assert directory.lay_over("web", None)
        assert healths(directory.current.services["web"])[A] is Health.UNKNOWN
        assert not directory.current.findings

    def test_findings_of_a_service_that_is_not_there_wait_for_it(self) -> None:
        directory = Directory()
        assert not directory.lay_over("web", Findings({A: FAILS}))
        directory.publish("file", [web(A)])
        assert healths(directory.current.services["web"]) == {A: Health.UNHEALTHY}

    def test_findings_do_not_sync_a_directory(self) -> None:
        directory = Directory()
        directory.await_source("file")
        directory.lay_over("web", Findings())
        assert not directory.synced
