"""Faults made on purpose, to see what a program makes of them: `FaultInjection`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

from lbcore.errors import LbError
from lbcore.fault import Fault

__all__ = ["FaultInjected", "FaultInjection"]


class FaultInjected(LbError, RuntimeError):
    """A call that was failed on purpose; `status` is an HTTP status or the number of a gRPC code."""

    def __init__(self, status: int) -> None:
        super().__init__(f"failed on purpose, with status {status}")
        self.status = status


class FaultInjection:
    """Delays or fails a share of calls before they go anywhere, so that no endpoint is blamed and nothing is retried.

    Args:
        fault: what, and of how many: the value that routes take as well.
        headers: the call must have all of these, by name and value; names in any case.
        keys: the call's key must be one of these, if there are any.

    Source: Envoy fault_filter.cc (a delay comes before an abort; each counts as active, the delay as long as it lasts).

    >>> from lbcore.fault import FaultAbort
    >>> faults = FaultInjection(Fault(abort=FaultAbort(http_status=503)), keys={"user-1"})
    >>> asyncio.run(faults.apply("user-2", {}, lambda: 0.0))
    >>> asyncio.run(faults.apply("user-1", {}, lambda: 0.0))
    Traceback (most recent call last):
    lbcore.resilience.fault_injection.FaultInjected: failed on purpose, with status 503
    """

    def __init__(self, fault: Fault, *, headers: Mapping[str, str] | None = None, keys: Collection[Any] = ()) -> None:
        self.fault = fault
        self.active = 0
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._keys = keys

    async def apply(self, key: Any, headers: Mapping[str, str], random: Callable[[], float]) -> None:
        """Waits, raises `FaultInjected`, or does nothing; `random` gives numbers from 0 up to, but without, 1."""
        if not self._matches(key, headers):
            return
        delay, abort = self.fault.delay, self.fault.abort
        if delay is not None and self._room() and random() * 100 < delay.percentage:
            self.active += 1
            try:
                await asyncio.sleep(delay.fixed_delay)
            finally:
                self.active -= 1
        if abort is not None and self._room() and random() * 100 < abort.percentage:
            raise FaultInjected(abort.http_status or abort.grpc_status or 0)

    def _room(self) -> bool:
        most = self.fault.max_active_faults
        return most is None or self.active < most

    def _matches(self, key: Any, headers: Mapping[str, str]) -> bool:
        if self._keys and key not in self._keys:
            return False
        if not self._headers:
            return True
        given = {name.lower(): value for name, value in headers.items()}
        return all(given.get(name) == value for name, value in self._headers.items())
