"""What a server says of its own load with a response: ORCA's report, and its requests in flight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lbcore.validation import number, whole

__all__ = ["LoadReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """One report. Source: xds.data.orca.v3.OrcaLoadReport; `rif` is lbcore's own.

    Fields:
        rif: the server's requests in flight when it answered; None if it did not say.
        cpu_utilization, application_utilization, mem_utilization: 0.0 idle to 1.0 full; the first two may
            exceed it.
        rps_fractional: requests a second that it serves.
        eps: errors a second.
        named_metrics: any others.

    Raises `InvalidSetting` for a value that is negative or not finite.
    """

    rif: int | None = None
    cpu_utilization: float = 0.0
    application_utilization: float = 0.0
    mem_utilization: float = 0.0
    rps_fractional: float = 0.0
    eps: float = 0.0
    named_metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rif is not None:
            whole(self.rif, "rif", 0, 2**31 - 1)
        for name in ("cpu_utilization", "application_utilization", "rps_fractional", "eps"):
            number(getattr(self, name), name, 0.0)
        number(self.mem_utilization, "mem_utilization", 0.0, 1.0)
