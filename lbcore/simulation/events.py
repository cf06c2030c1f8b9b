"""What happens to a fleet in the course of a scenario. Times are seconds since its start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from lbcore.errors import Mistake
from lbcore.schema import Checked
from lbcore.simulation.fleet import MAX_SERVERS
from lbcore.validation import Number, Percent, Seconds, Whole

__all__ = ["Burst", "Event", "FailFast", "Join", "Leave", "Pause", "SlowDown"]

Span = Annotated[float, Seconds(1e-6)]
At = Annotated[float, Seconds(0.0)]
Count = Annotated[int, Whole(1, MAX_SERVERS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowDown(Checked):
    """Servers, drawn at random, take `factor` times as long, until `duration` has passed or to the end."""

    servers: Count
    at: At
    duration: Span | None = None
    factor: Annotated[float, Number(0.01, 1000.0)] = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Checked):
    """Servers stand still together, as in a collection of garbage, once or `every` so many seconds; none is lost."""

    servers: Count
    at: At
    duration: Span
    every: Span | None = None

    def contradictions(self) -> Iterator[Mistake]:
        if self.every is not None and self.every <= self.duration:
            what = f"every {self.every:g}: expected more than duration, {self.duration:g}"
            yield Mistake(("every",), what, see=("duration",))


@dataclass(frozen=True, slots=True, kw_only=True)
class FailFast(Checked):
    """Servers answer `share` percent of their requests with an error, each after `latency` seconds of work."""

    servers: Count
    at: At = 0.0
    duration: Span | None = None
    latency: Annotated[float, Seconds(0.0)] = 0.001
    share: Percent = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Join(Checked):
    """Servers are not there before: they join every client that shall know them, all at once."""

    servers: Count
    at: At


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave(Checked):
    """Servers leave every client, finish what they have, and may come back after `duration`."""

    servers: Count
    at: At
    duration: Span | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst(Checked):
    """`factor` times as many requests come."""

    at: At
    duration: Span
    factor: Annotated[float, Number(0.01, 100.0)] = 2.0


Event: TypeAlias = SlowDown | Pause | FailFast | Join | Leave | Burst
