"""Who checks what, and what follows: any members, any order of events, the same conclusions everywhere."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbcore.board import Verdict
from lbcore.health.sharing import ServiceShare, conclusion, digest
from lbcore.model import CheckedHealth
from lbcore.settings import HealthCheck, HttpHealthCheck, TcpHealthCheck

WELL, ILL = CheckedHealth(), CheckedHealth(passing=False, reason="status 503")
DEGRADED = CheckedHealth(degraded=True)
ADDRESSES = [f"10.0.{n // 250}.{n % 250}:80" for n in range(2000)]
E = "10.0.0.1:80"


def shares(members: list[str], owners: int = 2) -> dict[str, ServiceShare]:
    """Each member's view."""
    made = {member: ServiceShare(member, "web", owners) for member in members}
    for share in made.values():
        share.meet(members)
    return made


def owners_of(views: dict[str, ServiceShare], address: str) -> set[str]:
    return {member for member, share in views.items() if share.owns(address)}


def test_each_endpoint_has_so_many_owners_and_the_shares_are_even() -> None:
    views = shares(list("abcde"))
    owned = Counter(member for address in ADDRESSES for member in owners_of(views, address))
    assert sum(owned.values()) == 2 * len(ADDRESSES)
    # 6 sigma of a binomial share of 2 in 5
    assert all(abs(count - 800) < 6 * (2000 * 0.4 * 0.6) ** 0.5 for count in owned.values()), owned


def test_fewer_members_than_owners_check_everything() -> None:
    views = shares(["a", "b"], owners=3)
    assert all(owners_of(views, address) == {"a", "b"} for address in ADDRESSES[:50])


def test_a_member_that_goes_changes_the_owners_of_its_own_share_alone() -> None:
    before, after = shares(list("abcde")), shares(list("abcd"))
    for address in ADDRESSES:
        was, now = owners_of(before, address), owners_of(after, address)
        assert now == was if "e" not in was else now > was - {"e"}


def test_an_endpoint_that_changes_hands_goes_on_from_what_is_known_and_is_given_up_once_the_new_owner_spoke() -> None:
    old, *_ = (share for share in shares(["a"], owners=1).values())
    old.hear(E, {"a": Verdict(WELL, 5)})
    new_name = next(name for name in map(str, range(100)) if shares(["a", name], owners=1)[name].owns(E))
    old.meet(["a", new_name])
    new = ServiceShare(new_name, "web", 1)
    new.meet(["a", new_name])
    new.hear(E, {"a": Verdict(WELL, 5)})
    assert (old.owns(E), old.checks(E), new.checks(E), new.found(E)) == (False, True, True, WELL)
    for share in (old, new):
        share.hear(E, {"a": Verdict(WELL, 5), new_name: Verdict(WELL, 6)})
    assert (old.checks(E), new.checks(E)) == (False, True)


def test_what_was_known_stays_when_all_who_spoke_are_gone() -> None:
    share = ServiceShare("a", "web", 2)
    share.meet(["a", "b", "c"])
    share.hear(E, {"b": Verdict(ILL, 1), "c": Verdict(ILL, 2)})
    assert share.found(E) == ILL
    share.hear(E, {})
    share.meet(["a"])
    assert share.found(E) == ILL
    share.hear(E, {"a": Verdict(WELL, 3)})
    assert share.found(E) == WELL


def test_a_minority_changes_nothing_that_is_known_but_is_better_than_nothing() -> None:
    share = ServiceShare("a", "web", 3)
    share.meet(["a", "b", "c"])
    share.hear(E, {"b": Verdict(ILL, 1)})
    assert share.found(E) == ILL  # nothing else was known
    share.hear(E, {"b": Verdict(ILL, 1), "a": Verdict(WELL, 2), "c": Verdict(WELL, 3)})
    assert share.found(E) == WELL
    share.hear(E, {"b": Verdict(ILL, 1)})
    assert share.found(E) == WELL


def test_alone_its_own_word_counts_and_what_was_known_before() -> None:
    share = ServiceShare("a", "web", 3)
    share.meet(["a", "b"])
    share.hear(E, {"b": Verdict(ILL, 1), "a": Verdict(ILL, 2)})
    assert share.found(E) == ILL
    share.meet([])
    assert (share.alone, share.checks(ADDRESSES[7]), share.found(E)) == (True, True, ILL)
    share.say(E, WELL)
    assert share.found(E) == WELL


def test_what_its_owners_do_not_know_is_checked_by_who_does() -> None:
    name = next(name for name in map(str, range(100)) if shares(["a", name], owners=1)[name].owns(E))
    share = ServiceShare("a", "web", 1)
    share.meet(["a", name])
    assert (share.checks(E), share.unheard(E)) == (False, True)
    share.adopt([E])
    assert share.checks(E)
    share.hear(E, {"a": Verdict(WELL, 1)})
    assert (share.checks(E), share.found(E), share.unheard(E)) == (True, WELL, False)
    share.hear(E, {"a": Verdict(WELL, 1), name: Verdict(WELL, 2)})
    assert not share.checks(E)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([(1, ILL), (2, WELL), (3, WELL)], WELL),
        ([(1, WELL), (2, ILL)], WELL),
        ([(2, WELL), (1, ILL)], ILL),
        ([(1, ILL), (2, WELL), (3, DEGRADED)], WELL),
        ([(1, ILL), (3, WELL), (2, DEGRADED)], DEGRADED),
        ([(1, WELL), (2, DEGRADED), (3, DEGRADED)], DEGRADED),
    ],
)
def test_the_majority_decides_and_of_a_tie_the_older_word(
    votes: list[tuple[int, CheckedHealth]], expected: CheckedHealth
) -> None:
    for order in itertools.permutations(votes):
        assert conclusion([Verdict(found, since) for since, found in order]) == expected


def test_servers_that_would_check_differently_are_told_apart() -> None:
    http = HealthCheck(http=HttpHealthCheck())
    others = [
        HealthCheck(tcp=TcpHealthCheck()),
        HealthCheck(http=HttpHealthCheck(path="/x")),
        HealthCheck(http=HttpHealthCheck(), interval=1.0),
    ]
    assert digest(http) == digest(HealthCheck(http=HttpHealthCheck()))
    assert len({digest(each) for each in (http, *others)}) == 4


@given(st.lists(st.tuples(st.sampled_from([WELL, ILL, DEGRADED]), st.integers(1, 9)), min_size=1, max_size=5))
def test_a_conclusion_is_one_of_the_words_and_no_order_matters(votes: list[tuple[CheckedHealth, int]]) -> None:
    unique = [Verdict(found, 10 * since + place) for place, (found, since) in enumerate(votes)]
    concluded = conclusion(unique)
    assert concluded in [each.found for each in unique]
    assert conclusion(unique[::-1]) == concluded
    passing = sum(each.found.passing for each in unique)
    if 2 * passing != len(unique):
        assert concluded.passing is (2 * passing > len(unique))


class Histories(RuleBasedStateMachine):
    """Members come, crash, speak; every one of them hears the same, and checks what it is told to check.

    A crash takes the member's verdicts with it. A member that owns or is told to go on speaks sooner or later; one that
    does not any more takes its verdicts back.
    """

    @initialize(owners=st.integers(1, 3), seed=st.integers(0, 2**16))
    def begin(self, owners: int, seed: int) -> None:
        self.owners = owners
        self.chance = random.Random(seed)
        self.names = itertools.count()
        self.views: dict[str, ServiceShare] = {}
        self.verdicts: dict[str, dict[str, Verdict]] = {address: {} for address in ADDRESSES[:4]}
        self.revision = 0
        self.settled = False
        self.come()

    @rule()
    def come(self) -> None:
        if len(self.views) < 6:
            name = f"m{next(self.names)}"
            self.views[name] = ServiceShare(name, "web", self.owners)
            self._meet()

    @precondition(lambda self: len(self.views) > 1)
    @rule()
    def crash(self) -> None:
        gone = self.chance.choice(sorted(self.views))
        del self.views[gone]
        for verdicts in self.verdicts.values():
            verdicts.pop(gone, None)
        self._meet()

    @rule(number=st.integers(0, 3), ill=st.booleans())
    def speak(self, number: int, ill: bool) -> None:
        address = ADDRESSES[number]
        for name, share in sorted(self.views.items()):
            if share.checks(address) and self.chance.random() < 0.6:
                self.revision += 1
                self.verdicts[address][name] = Verdict(ILL if ill else WELL, self.revision)
        self._hear()

    @rule()
    def settle(self) -> None:
        """Everybody has had the time to speak and to take back what nobody needs."""
        for address, verdicts in self.verdicts.items():
            for name, share in self.views.items():
                if share.checks(address) and name not in verdicts:
                    self.revision += 1
                    verdicts[name] = Verdict(WELL, self.revision)
            self._hear()
            for name, share in self.views.items():
                if not share.checks(address):
                    verdicts.pop(name, None)
        self._hear()
        self.settled = True

    def _meet(self) -> None:
        self.settled = False
        for share in self.views.values():
            share.meet(self.views)
        self._hear()

    def _hear(self) -> None:
        for address, verdicts in self.verdicts.items():
            for share in self.views.values():
                before = share.found(address)
                share.hear(address, dict(verdicts))
                assert before is None or share.found(address) is not None, "what was known was forgotten"

    @invariant()
    def every_endpoint_is_somebody_s(self) -> None:
        for address in self.verdicts:
            owners = owners_of(self.views, address)
            assert len(owners) == min(self.owners, len(self.views))
            assert all(self.views[name].checks(address) for name in owners)

    @invariant()
    def where_everybody_has_spoken_all_agree_and_only_owners_check(self) -> None:
        if not self.settled:
            return
        for address in self.verdicts:
            assert len({share.found(address) for share in self.views.values()}) == 1
            checking = {name for name, share in self.views.items() if share.checks(address)}
            assert checking == owners_of(self.views, address)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
