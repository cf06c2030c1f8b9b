"""Hedging: asking a second endpoint before the first has answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lbcore.schema import Checked
from lbcore.validation import Seconds, Whole

__all__ = ["Hedge"]


@dataclass(frozen=True, slots=True)
class Hedge(Checked):
    """An attempt that has not ended after `delay` seconds gets company, until `attempts` are under way; the first good
    answer wins and the others are cancelled. One that fails in a way that may be tried again brings the next at once.

    For calls that may be made twice. A `delay` near the 95th percentile of latency costs about 5 % more calls.
    Source: gRFC A6, hedgingPolicy (maxAttempts, hedgingDelay); Dean and Barroso, The Tail at Scale (2013).
    """

    delay: Annotated[float, Seconds(0.0)]
    attempts: Annotated[int, Whole(2, 100)] = 2
