"""A report as a picture: how much is slower than what, and, where something happens, p99 and traffic over time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from lbcore.errors import LbError
from lbcore.simulation.outcome import QUANTILES
from lbcore.simulation.report import Report, Row
from lbcore.simulation.timeline import spans

__all__ = ["draw"]

PANEL = (5.6, 4.0)  # inches
DPI = 90
BASELINES = {"jsq": ("black", "--"), "sed": ("gray", ":")}


def draw(report: Report, path: Path, title: str) -> None:
    """Writes the picture; the ending of the path says in which format. Raises `LbError` where it cannot."""
    happening = [index for index, event in enumerate(report.rows[0].outcomes[0].events) if event.fair_share]
    panels = 3 if happening else 2 if report.scenario.events else 1
    figure = Figure(figsize=(PANEL[0] * panels, PANEL[1]), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _latencies(axes[0], report.rows)
    if panels > 1:
        _over_time(axes[1], report)
    if panels > 2:
        _traffic(axes[2], report, happening[0])
    figure.suptitle(title)
    try:
        figure.savefig(path, dpi=DPI)
    except (OSError, ValueError) as wrong:  # ValueError: a format that it does not know
        raise LbError(f"{path}: {wrong}") from None


def _latencies(axes: Axes, rows: Iterable[Row]) -> None:
    for row in rows:
        latencies = _median(outcome.curve for outcome in row.outcomes) * 1e3
        _line(axes, row, latencies, 100.0 * (1.0 - QUANTILES))
    axes.set(xscale="log", yscale="log", xlabel="latency, ms", ylabel="slower than that, % of the requests")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.axhline(1.0, color="lightgray", linewidth=0.8)
    axes.legend(fontsize="x-small")


def _over_time(axes: Axes, report: Report) -> None:
    for row in report.rows:
        times = _median(outcome.times for outcome in row.outcomes)
        _line(axes, row, times, _median(outcome.p99_by_time for outcome in row.outcomes) * 1e3)
    axes.set(yscale="log", xlabel="time, s", ylabel="p99, ms")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    _shade(axes, report)


def _traffic(axes: Axes, report: Report, index: int) -> None:
    for row in report.rows:
        times = _median(outcome.times for outcome in row.outcomes)
        _line(axes, row, times, _median(outcome.events[index].curve for outcome in row.outcomes))
    event = report.rows[0].outcomes[0].events[index]
    axes.axhline(event.fair_share, color="lightgray", linewidth=0.8)
    axes.set(xlabel="time, s", ylabel=f"traffic to the servers of {event.kind}, %", ylim=(0.0, None))
    _shade(axes, report)


def _shade(axes: Axes, report: Report) -> None:
    last = report.rows[0].outcomes[0].times[-1]
    for begin, end in spans(report.scenario, last):
        axes.axvspan(begin, end, color="orange", alpha=0.15, linewidth=0.0)


def _line(axes: Axes, row: Row, x: NDArray[numpy.float64], y: NDArray[numpy.float64]) -> None:
    color, style = BASELINES.get(row.name, (None, "-"))
    axes.plot(x, y, label=row.name, color=color, linestyle=style, linewidth=1.3)


def _median(curves: Iterable[tuple[float, ...]]) -> NDArray[numpy.float64]:
    """Of several seeds, point by point."""
    stacked = numpy.array(list(curves))
    return stacked[0] if len(stacked) == 1 else numpy.asarray(numpy.median(stacked, axis=0))
