"""The two hash functions that place endpoints and keys: XXH64 and MurmurHash2.

XXH64 is the `xxhash` package's. MurmurHash2 is the 64-bit variant of GNU libstdc++'s `std::hash<std::string>`
(MurmurHash64A with its tail read as one little-endian number), with libstdc++'s
seed: Envoy source/common/common/hash.h.
"""

from __future__ import annotations

import xxhash

MASK_64 = 2**64 - 1
MURMUR_SEED = 0xC70F6907
_MURMUR_FACTOR = 0xC6A4A7935BD1E995


def xxh64(data: bytes, seed: int = 0) -> int:
    return xxhash.xxh64_intdigest(data, seed)


def murmur_hash_2(data: bytes, seed: int = MURMUR_SEED) -> int:
    whole = len(data) - len(data) % 8
    value = seed ^ (len(data) * _MURMUR_FACTOR & MASK_64)
    for start in range(0, whole, 8):
        word = int.from_bytes(data[start : start + 8], "little") * _MURMUR_FACTOR & MASK_64
        value ^= _shift_mix(word) * _MURMUR_FACTOR & MASK_64
        value = value * _MURMUR_FACTOR & MASK_64
    if whole < len(data):
        value ^= int.from_bytes(data[whole:], "little")
        value = value * _MURMUR_FACTOR & MASK_64
    return _shift_mix(_shift_mix(value) * _MURMUR_FACTOR & MASK_64)


def _shift_mix(value: int) -> int:
    return value ^ (value >> 47)
