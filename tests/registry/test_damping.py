"""An endpoint that keeps coming and going is held back; what gets worse never is, and nothing that was said is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbcore.directory import Directory
from lbcore.model import Endpoint, Health
from lbcore.registration import Change, Key, Registration, RegistrySettings
from lbcore.registry.damping import Damping, usable
from lbcore.registry.publishing import Publisher
from tests.registry.clock import Clock

KEY = Key("web", "10.0.0.1:80")
OTHER = Key("web", "10.0.0.2:80")
WELL, ILL = Endpoint(KEY.address), Endpoint(KEY.address, health=Health.UNHEALTHY)


class Scene:
    """A publisher whose clock the test moves, and what it has published."""

    def __init__(self, max_flaps: int = 3, flap_hold: float = 10.0) -> None:
        self.clock = Clock()
        self.directory = Directory()
        settings = RegistrySettings(debounce=0.0, max_flaps=max_flaps, flap_hold=flap_hold)
        self.publisher = Publisher(self.directory, settings, self.clock)
        self.say(OTHER, Endpoint(OTHER.address))

    def say(self, key: Key, endpoint: Endpoint | None) -> None:
        registration = (
            None if endpoint is None else Registration(service=key.service, endpoint=endpoint, lease=1, revision=1)
        )
        self.publisher.apply([Change(1, key, registration)])
        self.publisher.publish()

    def after(self, seconds: float) -> Health | None:
        """What shows of the endpoint after so long."""
        self.clock.advance(seconds)
        self.publisher.publish()
        service = self.directory.current.services.get("web")
        found = [each.health for each in (service.endpoints if service else ()) if each.address == KEY.address]
        return found[0] if found else None


def test_returns_wait_after_three_falls_and_then_show() -> None:
    scene = Scene()
    for _ in range(3):
        scene.say(KEY, WELL)
        assert scene.after(0.1) is Health.UNKNOWN
        scene.say(KEY, ILL)
        assert scene.after(0.1) is Health.UNHEALTHY
    scene.say(KEY, WELL)
    assert scene.after(9.9) is Health.UNHEALTHY
    assert scene.publisher.damped == {"web": 1}
    assert scene.after(0.2) is Health.UNKNOWN
    assert scene.publisher.damped == {}


def test_another_fall_begins_the_wait_anew_and_a_removal_is_never_held_back() -> None:
    scene = Scene(max_flaps=1)
    scene.say(KEY, WELL)
    scene.say(KEY, None)
    scene.say(KEY, WELL)
    assert scene.after(9.0) is None
    scene.say(KEY, ILL)
    assert scene.after(0.0) is Health.UNHEALTHY
    scene.say(KEY, WELL)
    assert scene.after(9.0) is Health.UNHEALTHY
    scene.say(KEY, None)
    assert scene.after(2.0) is None
    assert scene.after(60.0) is None


def test_falls_of_long_ago_do_not_count() -> None:
    scene = Scene()
    for _ in range(10):
        scene.say(KEY, WELL)
        assert scene.after(5.0) is Health.UNKNOWN
        scene.say(KEY, ILL)
        assert scene.after(10.0) is Health.UNHEALTHY


def test_what_a_service_has_nothing_else_than_is_not_held_back() -> None:
    scene = Scene(max_flaps=1)
    scene.say(KEY, WELL)
    scene.say(KEY, ILL)
    scene.say(KEY, WELL)
    assert scene.after(1.0) is Health.UNHEALTHY
    scene.say(OTHER, Endpoint(OTHER.address, health=Health.DRAINING))
    assert scene.after(0.0) is Health.UNKNOWN


def test_a_change_of_settings_is_no_fall_and_a_hold_of_nothing_damps_nothing() -> None:
    scene = Scene(max_flaps=1)
    for weight in range(1, 9):
        scene.say(KEY, Endpoint(KEY.address, weight=weight))
        assert scene.after(0.0) is Health.UNKNOWN
    off = Scene(max_flaps=1, flap_hold=0.0)
    for _ in range(9):
        off.say(KEY, WELL)
        assert off.after(0.0) is Health.UNKNOWN
        off.say(KEY, None)
        assert off.after(0.0) is None


@given(
    st.lists(st.tuples(st.sampled_from([None, WELL, ILL]), st.floats(0.0, 20.0)), max_size=40),
    st.integers(1, 4),
)
def test_of_any_history_what_is_worse_shows_at_once_and_the_last_word_in_the_end(
    history: list[tuple[Endpoint | None, float]], max_flaps: int
) -> None:
    clock = Clock()
    damping = Damping(max_flaps, 10.0, clock)
    shown = said = None
    for said, pause in history:
        before = shown
        shown = damping.shown(KEY, before, said)
        if not usable(said):
            assert shown == said
        assert shown in (before, said)
        clock.advance(pause)
        for _, shown in damping.due():
            assert shown == said
    clock.advance(10.0)
    assert [shown, *(held for _, held in damping.due())][-1] == said
    assert not damping.held
