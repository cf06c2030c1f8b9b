"""Which endpoints of a fleet one of many clients uses at all: a stage before any policy.

With thousands of clients, each of which knows every endpoint, connections are many and what a client sees of any one
endpoint is little. Over a small subset each client balances nearly as well as one balancer alone would.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from lbcore._core import hash64
from lbcore.errors import Mistake
from lbcore.model import Endpoint
from lbcore.schema import Checked
from lbcore.validation import UINT32_MAX, Whole

__all__ = ["DeterministicSubsetting", "RandomSubsetting", "Subsetting", "subset_by_priority"]

SubsetSize = Annotated[int, Whole(1, UINT32_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeterministicSubsetting(Checked):
    """Subsets that cover the fleet evenly: of all clients, as many use one endpoint as another, give or take one.

    Clients are numbered, and each knows its number and how many there are, from its orchestrator. Each round of clients
    shares a shuffled order of the fleet out among itself; the next round shuffles anew, so that the clients of a lost
    endpoint do not all fall to the same others. A client whose number does not change keeps its subset.

    Fields:
        client_index: this client's number, from 0.
        client_count: how many clients there are.
        subset_size: endpoints that each client uses; those that are over go to nobody in this round.

    Raises `InvalidSetting`. Source: Beyer et al., Site Reliability Engineering, chapter 20; Twitter calls its likes a
    deterministic aperture.
    """

    client_index: Annotated[int, Whole(0, UINT32_MAX)]
    client_count: Annotated[int, Whole(1, UINT32_MAX)]
    subset_size: SubsetSize = 20

    def contradictions(self) -> Iterator[Mistake]:
        if self.client_index >= self.client_count:
            what = f"client_index {self.client_index}: expected less than client_count {self.client_count}"
            yield Mistake(("client_index",), what, see=("client_count",))

    def choose(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """This client's subset, in the order given; all where there are no more than `subset_size`."""
        count = len(endpoints)
        if count <= self.subset_size:
            return tuple(endpoints)
        clients_a_round = count // self.subset_size
        dice = random.Random(self.client_index // clients_a_round)
        order = sorted(range(count), key=lambda place: endpoints[place].address)
        dice.shuffle(order)
        first = self.client_index % clients_a_round * self.subset_size
        return tuple(endpoints[place] for place in sorted(order[first : first + self.subset_size]))


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSubsetting(Checked):
    """The endpoints whose addresses hash lowest with this client's seed; who joins or leaves changes one at most.

    Choose it where clients have no numbers; some endpoints then get more clients than others.

    Fields:
        seed: of this client; equal seeds give equal subsets.
        subset_size: endpoints to use.

    Raises `InvalidSetting`. Source: gRFC A68, with XXH64 of the address.
    """

    seed: Annotated[int, Whole(0, 2**64 - 1)]
    subset_size: SubsetSize = 20

    def choose(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """This client's subset, in the order given; all where there are no more than `subset_size`."""
        if len(endpoints) <= self.subset_size:
            return tuple(endpoints)
        by_hash = sorted(endpoints, key=lambda endpoint: (hash64(endpoint.address, self.seed), endpoint.address))
        chosen = {endpoint.address for endpoint in by_hash[: self.subset_size]}
        return tuple(endpoint for endpoint in endpoints if endpoint.address in chosen)


Subsetting = DeterministicSubsetting | RandomSubsetting


def subset_by_priority(subsetting: Subsetting, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """The subset of each priority, so that none is left without endpoints; in the order given."""
    priorities = {endpoint.priority for endpoint in endpoints}
    chosen: set[str] = set()
    for priority in priorities:
        level = [endpoint for endpoint in endpoints if endpoint.priority == priority]
        chosen |= {endpoint.address for endpoint in subsetting.choose(level)}
    return tuple(endpoint for endpoint in endpoints if endpoint.address in chosen)
