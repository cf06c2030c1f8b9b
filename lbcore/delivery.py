"""How the xDS server delivers: how soon changes go out, how many streams it takes, how often load comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from lbcore.errors import Mistake
from lbcore.schema import Checked
from lbcore.validation import UINT32_MAX, Interval, Number, Seconds, Whole

__all__ = ["XdsDelivery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class XdsDelivery(Checked):
    """Settings of the xDS server as a whole.

    Fields:
        debounce_window: a change after a quiet time goes out at once; changes that follow it are gathered until none
            comes for so long.
        debounce_max: the longest that a change is gathered.
        max_streams: open at once.
        max_new_streams: each second, on average; ten times as many may come at once. More are told to come back
            (RESOURCE_EXHAUSTED), so that a fleet that reconnects is served little by little.
        max_connection_age: after which a connection is ended, give or take a tenth, so that clients spread over new
            replicas; None: never. Takes effect with a restart.
        load_reporting_interval: between two load reports of a client.

    Source: the debounce and the throttle are istiod's (pilot/pkg/features/tuning.go).
    """

    debounce_window: Annotated[float, Seconds(0.0)] = 0.002
    debounce_max: Interval = 0.5
    max_streams: Annotated[int, Whole(1, UINT32_MAX)] = 50_000
    max_new_streams: Annotated[float, Number(0.0, above=True)] = 1000.0
    max_connection_age: Interval | None = None
    load_reporting_interval: Interval = 10.0

    def contradictions(self) -> Iterator[Mistake]:
        if self.debounce_max < self.debounce_window:
            what = f"debounce_max {self.debounce_max:g}: expected at least debounce_window {self.debounce_window:g}"
            yield Mistake(("debounce_max",), what, see=("debounce_window",))
