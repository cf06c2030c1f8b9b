"""Faults made on purpose, to see what becomes of them: a share of requests is delayed, or fails. Values.

Source: Envoy HTTPFault (extensions/filters/http/fault/v3), gRFC A33.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from lbcore.errors import Mistake
from lbcore.schema import Checked
from lbcore.validation import UINT32_MAX, Interval, Percent, Whole

__all__ = ["Fault", "FaultAbort", "FaultDelay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultDelay(Checked):
    """A share of requests, in percent, waits before it is sent on."""

    fixed_delay: Interval
    percentage: Percent = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultAbort(Checked):
    """A share of requests, in percent, is answered with a status and goes nowhere; either status is for all clients."""

    http_status: Annotated[int, Whole(200, 599)] | None = None
    grpc_status: Annotated[int, Whole(1, 16)] | None = None
    percentage: Percent = 100.0

    def contradictions(self) -> Iterator[Mistake]:
        if (self.http_status is None) == (self.grpc_status is None):
            yield Mistake((), "expected either http_status or grpc_status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Checked):
    """Delay, failure or both; at most `max_active_faults` at once."""

    delay: FaultDelay | None = None
    abort: FaultAbort | None = None
    max_active_faults: Annotated[int, Whole(0, UINT32_MAX)] | None = None

    def contradictions(self) -> Iterator[Mistake]:
        if self.delay is None and self.abort is None:
            yield Mistake((), "expected delay, abort or both")
