"""A progress bar on a terminal's stderr; nothing anywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Literal

__all__ = ["ProgressBar"]

WIDTH = 40
REDRAW = 0.1  # seconds


class ProgressBar:
    """`with ProgressBar() as show: ... show(0.5)`; gone when the block ends."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._drawn = 0.0

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if self._shown and now >= self._drawn + REDRAW:
            self._drawn = now
            full = round(WIDTH * share)
            print(f"\r[{'#' * full}{'.' * (WIDTH - full)}] {share:4.0%}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        if self._drawn:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        return False
