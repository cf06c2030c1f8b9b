"""Endpoints and keys to measure with; the same in every run."""

from __future__ import annotations

import random

from lbcore import Endpoint

__all__ = ["endpoints", "keys"]


def endpoints(count: int, *, weighted: bool = False) -> list[Endpoint]:
    """10.0.x.y:80; weights 1 to 10 in turn where weighted."""
    return [
        Endpoint(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:80", weight=number % 10 + 1 if weighted else 1)
        for number in range(count)
    ]


def keys(count: int, length: int = 16) -> list[str]:
    """Distinct ASCII keys of one length."""
    choose = random.Random(5)
    return [f"{choose.getrandbits(4 * length):0{length}x}" for _ in range(count)]
