"""The Maglev table: Envoy maglev/maglev_lb.cc, slot for slot; Eisenbud et al., NSDI 2016, listing 1.

Departure: endpoints with one and the same hash key keep the cluster's order (in Envoy that of their places in memory).
"""

from __future__ import annotations

from collections.abc import Sequence

from lbcore.model import Endpoint
from tests.reference.hash_key import hash_key
from tests.reference.hashing import MASK_64, xxh64
from tests.reference.shares import Share


class MaglevTable:
    def __init__(self, shares: Sequence[Share], size: int = 65537, use_hostname: bool = False) -> None:
        self.size = size
        entries = sorted(shares, key=lambda entry: hash_key(entry.endpoint, use_hostname))
        keys = [hash_key(endpoint, use_hostname) for endpoint, _ in entries]
        offsets = [xxh64(key) % size for key in keys]
        skips = [xxh64(key, 1) % (size - 1) + 1 for key in keys]
        heaviest = max(share for _, share in shares)
        following = [0] * len(entries)
        due = [0.0] * len(entries)
        slots: list[Endpoint | None] = [None] * size
        filled = 0
        turn = 0
        while filled < size:
            turn += 1
            for i, (endpoint, share) in enumerate(entries):
                if filled == size:
                    break
                if turn * share < due[i]:  # the heaviest takes a slot every turn, one of half its share every other
                    continue
                due[i] += heaviest
                slot = (offsets[i] + skips[i] * following[i]) % size
                while slots[slot] is not None:
                    following[i] += 1
                    slot = (offsets[i] + skips[i] * following[i]) % size
                slots[slot] = endpoint
                following[i] += 1
                filled += 1
        self.slots = [owner for owner in slots if owner is not None]

    def choose(self, key_hash: int, attempt: int = 0) -> Endpoint:
        """The owner of slot hash % size; a retry flips the hash's high bits, so that it lands somewhere else."""
        if attempt:
            key_hash ^= (MASK_64 - attempt + 1) & MASK_64
        return self.slots[key_hash % self.size]
