"""Which of several servers checks an endpoint, and what follows from all that they find.

Every server knows the same members and verdicts (`lbcore.board`), and comes to the same conclusions on its own.
The rules, none of which needs a clock:

- For each endpoint the members are ranked by rendezvous hashing; the first `owners` of them check it. Who comes or goes
  changes the owners of its own share alone.
- Of those who have spoken the first `owners` in that order vote. The majority decides, of a tie the older word; a
  minority of voters changes nothing that is known. So one server with a bad network takes nothing out.
- Whoever gives an endpoint up goes on until the new owner has spoken, and that one goes on from what is known. So
  neither a server that comes nor one that goes makes a healthy endpoint look ill for a moment.
- Where all who spoke are gone, what was known stays until somebody speaks again.

Source: rendezvous hashing, Thaler and Ravishankar (1998).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from lbcore._core import hash64
from lbcore.board import Verdict
from lbcore.model import CheckedHealth
from lbcore.settings import HealthCheck

__all__ = ["ServiceShare", "conclusion", "digest"]

T = TypeVar("T")


class ServiceShare:
    """This server's share in the checks of one service's endpoints.

    Without other members it is all of them, and this server's own word is all that counts.

    >>> share = ServiceShare("a", "web", owners=1)
    >>> share.checks("10.0.0.1:80"), share.found("10.0.0.1:80")
    (True, None)
    >>> share.say("10.0.0.1:80", CheckedHealth(passing=False))
    >>> share.found("10.0.0.1:80").passing
    False
    """

    def __init__(self, me: str, service: str, owners: int) -> None:
        self._me = me
        self._service = service
        self._owners = owners
        self._members: tuple[str, ...] = ()  # empty: nobody can be heard, so this server is alone
        self._ranks: dict[str, tuple[str, ...]] = {}  # by address
        self._verdicts: dict[str, Mapping[str, Verdict]] = {}
        self._own: dict[str, CheckedHealth] = {}
        self._known: dict[str, CheckedHealth] = {}
        self._orphans: set[str] = set()

    @property
    def alone(self) -> bool:
        """Whether nobody else can be heard."""
        return not self._members

    def meet(self, members: Iterable[str]) -> bool:
        """Takes who checks this service now, this server included; returns whether that has changed."""
        met = tuple(sorted(members))
        if met == self._members:
            return False
        if not self._members or not met:
            self._own.clear()  # of another time; what was concluded from it stays known
            self._orphans.clear()
        self._members = met
        self._ranks.clear()
        return True

    def hear(self, address: str, verdicts: Mapping[str, Verdict]) -> None:
        """Takes all verdicts that there are on an endpoint."""
        if verdicts:
            self._verdicts[address] = verdicts
            self._orphans.discard(address)
        else:
            self._verdicts.pop(address, None)

    def say(self, address: str, found: CheckedHealth) -> None:
        """Takes this server's own verdict. Where others are heard it counts once it is heard with theirs."""
        self._own[address] = found

    def adopt(self, addresses: Iterable[str]) -> None:
        """Checks these though others own them, because nobody has said anything of them for too long: their owners may
        not know them."""
        self._orphans |= set(addresses)

    def forget(self, address: str) -> None:
        """Drops all about an endpoint that is gone."""
        self._own.pop(address, None)
        self._known.pop(address, None)
        self._ranks.pop(address, None)
        self._verdicts.pop(address, None)
        self._orphans.discard(address)

    def owns(self, address: str) -> bool:
        """Whether this server is one of an endpoint's owners."""
        return self.alone or self._me in self._rank(address)[: self._owners]

    def checks(self, address: str) -> bool:
        """Whether this server is to check an endpoint: as its owner, or until its owners have spoken."""
        return self.owns(address) or address in self._orphans or self._me in self._voters(address)

    def unheard(self, address: str) -> bool:
        """Whether nobody who could be heard has said anything of an endpoint."""
        return not self.alone and not self._voters(address)

    def own(self, address: str) -> CheckedHealth | None:
        """What this server has found itself."""
        return self._own.get(address)

    def drop(self, address: str) -> None:
        """Forgets what this server has found itself, of what it does not check any more."""
        self._own.pop(address, None)

    def found(self, address: str) -> CheckedHealth | None:
        """What follows for an endpoint; None where nothing is known. It is remembered as what is known."""
        said = self._own.get(address) if self.alone else self._concluded(address)
        if said is not None:
            self._known[address] = said
        return self._known.get(address)

    def _concluded(self, address: str) -> CheckedHealth | None:
        voters = self._voters(address)
        expected = min(self._owners, len(self._members))
        if not voters or (2 * len(voters) <= expected and address in self._known):
            return None
        verdicts = self._verdicts[address]
        return conclusion([verdicts[member] for member in voters])

    def _voters(self, address: str) -> list[str]:
        verdicts = self._verdicts.get(address)
        if not verdicts:
            return []
        return [member for member in self._rank(address) if member in verdicts][: self._owners]

    def _rank(self, address: str) -> tuple[str, ...]:
        rank = self._ranks.get(address)
        if rank is None:
            key = f"{self._service}\0{address}\0"
            rank = tuple(sorted(self._members, key=lambda member: hash64(key + member), reverse=True))
            self._ranks[address] = rank
        return rank


def conclusion(verdicts: Sequence[Verdict]) -> CheckedHealth:
    """What a vote comes to: first whether the endpoint passes, then in which way. A tie goes to the older verdict.

    >>> ill, well = CheckedHealth(passing=False), CheckedHealth()
    >>> conclusion([Verdict(ill, 1), Verdict(well, 2), Verdict(well, 3)]).passing
    True
    >>> conclusion([Verdict(ill, 1), Verdict(well, 2)]).passing
    False
    """
    passing = _most([(each.found.passing, each.since) for each in verdicts])
    agreed = [each for each in verdicts if each.found.passing is passing]
    way = _most([(_way(each.found), each.since) for each in agreed])
    return min((each for each in agreed if _way(each.found) == way), key=lambda each: each.since).found


def _way(found: CheckedHealth) -> tuple[bool, bool, bool]:
    return found.degraded, found.excluded, found.timed_out


def _most(votes: Sequence[tuple[T, int]]) -> T:
    counts = Counter(choice for choice, _ in votes)
    most = max(counts.values())
    return min((each for each in votes if counts[each[0]] == most), key=lambda each: each[1])[0]


def digest(settings: HealthCheck) -> str:
    """Of a check's settings: servers share an endpoint's checks only where they would check it in the same way."""
    return hashlib.blake2b(msgspec.json.encode(settings, order="deterministic"), digest_size=8).hexdigest()
