"""Jump consistent hashing: Lamping and Veach, arXiv:1406.2294, figure 1.

Shard numbers are positions in the cluster. A key whose shard is out of service is hashed again by lbcore's own mix, of
which only the properties are specified: the same key goes to the same place, and the keys spread over all that serve.
"""

from __future__ import annotations

from tests.reference.hashing import MASK_64


def jump_shard(key_hash: int, shards: int) -> int:
    shard, following = -1, 0
    while following < shards:
        shard = following
        key_hash = (key_hash * 2862933555777941757 + 1) & MASK_64
        following = int((shard + 1) * (float(1 << 31) / float((key_hash >> 33) + 1)))
    return shard
