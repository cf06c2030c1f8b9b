"""`Board`: where several servers tell each other which endpoints they check, and what they find."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from lbcore.model import CheckedHealth

__all__ = ["Board", "BoardReader", "Verdict"]


class Verdict(NamedTuple):
    """What one server has found of an endpoint; `since` orders verdicts by when they became what they are."""

    found: CheckedHealth
    since: int


class BoardReader(Protocol):
    """Hears of what changes on a board."""

    def members_changed(self) -> None:
        """Members came, went, or check something else; or the board is out of reach, or back."""

    def verdicts_changed(self, changed: Mapping[str, Collection[str]]) -> None:
        """Verdicts on these addresses, by service."""


class Board(Protocol):
    """Where servers tell each other what they check and find. In `lbcore serve` it is in etcd."""

    @property
    def me(self) -> str:
        """This server among the members."""

    @property
    def owners(self) -> int:
        """How many members check an endpoint."""

    @property
    def patience(self) -> float:
        """Seconds after which a member that fell silent is none."""

    @property
    def members(self) -> Mapping[str, Mapping[str, str]]:
        """By member, the services that it checks, each with the digest of its settings. Empty: nobody can be heard."""

    def verdicts(self, service: str) -> Mapping[str, Mapping[str, Verdict]]:
        """Those on a service's endpoints, by address and member."""

    def follow(self, reader: BoardReader) -> None:
        """Has the reader hear of changes from now on."""

    def offer(self, services: Mapping[str, str]) -> None:
        """Says that this server checks these."""

    def say(self, service: str, address: str, found: CheckedHealth | None) -> None:
        """Publishes this server's verdict; None: it has none any more."""
