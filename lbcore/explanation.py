"""Why a pick goes where it goes: `Explanation`, from `Cluster.explain`. Values, and their text for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lbcore.model import Endpoint, Locality
from lbcore.stats import EjectionCause, Learned, PriorityStats

__all__ = ["Candidate", "Ejected", "Explanation"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint that the pick was made among.

    Fields:
        weight, active: its weight and its requests in flight.
        score: how loaded the policy thinks it, for its weight; the least is picked of those that it looks at.
            None where the policy does not look at load.
        learned: what `Adaptive` knows of it; None by any other policy.
    """

    endpoint: Endpoint
    weight: int
    active: int
    score: float | None = None
    learned: Learned | None = None


@dataclass(frozen=True, slots=True)
class Ejected:
    """An endpoint that outlier detection keeps out: why, for how many seconds already, and which time it is.

    `remaining` is the seconds after which a `tick` lets it return; 0.0 where that is due.
    """

    endpoint: Endpoint
    cause: EjectionCause
    since: float
    remaining: float
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One pick, stage by stage.

    Fields:
        cluster, policy: names; from the picker service, the policy's name in the configuration.
        hash: the key's 64-bit hash; None where the policy does not hash.
        priorities: every priority's endpoints, loads in percent, and whether it is in panic.
        percent: 1 to 100, the place of this pick among the loads of the priorities; None without endpoints.
        priority: the one chosen; None without endpoints.
        degraded: whether the place falls to the priority's degraded endpoints.
        locality_shares: part of the priority's traffic by locality; None where localities do not matter.
        candidates: the endpoints among which the policy then chose.
        probes: a hash policy's own order for the key, in which retries and bounded loads go on; may repeat.
        winner: what `pick` gives now; None where it raises.
        reason: why there is no winner; empty where there is one.
        ejected: endpoints that outlier detection keeps out of this.
    """

    cluster: str
    policy: str
    hash: int | None
    priorities: tuple[PriorityStats, ...]
    percent: int | None
    priority: int | None
    degraded: bool
    locality_shares: Mapping[Locality, float] | None
    candidates: tuple[Candidate, ...]
    probes: tuple[Endpoint, ...]
    winner: Endpoint | None
    reason: str
    ejected: tuple[Ejected, ...] = ()

    def __str__(self) -> str:
        lines = [f"cluster {self.cluster}, policy {self.policy}"]
        if self.hash is not None:
            lines.append(f"hash {self.hash:#018x}")
        for number, level in enumerate(self.priorities):
            left_out = f" ({level.excluded} excluded)" if level.excluded else ""
            panic = ", PANIC: health is ignored" if level.panic else ""
            lines.append(
                f"priority {number}: {level.healthy} healthy and {level.degraded} degraded of {level.total}{left_out}, "
                f"load {level.healthy_load} % + {level.degraded_load} % degraded{panic}"
            )
        if self.priority is not None:
            part = " (degraded)" if self.degraded else ""
            lines.append(f"place {self.percent} of 100: priority {self.priority}{part}")
        if self.locality_shares is not None:
            shares = ", ".join(f"{place or '-'} {share:.2%}" for place, share in self.locality_shares.items())
            lines.append(f"localities: {shares}")
        shown = ", ".join(
            f"{each.endpoint.address} (weight {each.weight}, {each.active} active{_scored(each)})"
            for each in self.candidates[:8]
        )
        more = f" and {len(self.candidates) - 8} more" if len(self.candidates) > 8 else ""
        lines.append(f"among {len(self.candidates)}: {shown}{more}")
        if self.probes:
            lines.append(f"the key's order: {', '.join(each.address for each in self.probes)}")
        lines += [
            f"ejected: {out.endpoint.address} for {out.cause.value}, {out.since:.1f} s ago, "
            f"for {out.remaining:.1f} s more at least, time {out.times}"
            for out in self.ejected
        ]
        lines.append(f"winner {self.winner.address}" if self.winner else f"no winner: {self.reason}")
        return "\n".join(lines)


def _scored(candidate: Candidate) -> str:
    score = "" if candidate.score is None else f", score {candidate.score:.4g}"
    if candidate.learned is None:
        return score
    learned = candidate.learned
    failing = f" (fails {learned.failing:.0%} more often than others)" if learned.failing else ""
    return f"{score}: {learned.ratio:.2f} x the fleet's latency{failing}, queue {learned.queue:.3g}"
