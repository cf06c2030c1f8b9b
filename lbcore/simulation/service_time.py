"""How much work requests are: distributions of the time that a server of speed 1 takes for one. All have the mean asked
for, so that load means the same under each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from lbcore.schema import Checked
from lbcore.validation import Number, Seconds

__all__ = [
    "Bimodal",
    "Deterministic",
    "Exponential",
    "Hyperexponential",
    "Lognormal",
    "Pareto",
    "ServiceTime",
    "native_form",
]

Mean = Annotated[float, Seconds(1e-6)]
MEAN = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential(Checked):
    """Memoryless; its standard deviation is its mean, in seconds."""

    mean: Mean = MEAN


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperexponential(Checked):
    """Of two kinds, each exponential; on average `long_share` percent take `long_factor` times as long as others."""

    mean: Mean = MEAN
    long_share: Annotated[float, Number(0.0, 100.0)] = 1.0
    long_factor: Annotated[float, Number(1.0, 1e6)] = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lognormal(Checked):
    """Skewed as many measured services are; `sigma` is the standard deviation of the logarithm."""

    mean: Mean = MEAN
    sigma: Annotated[float, Number(0.0, 4.0)] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bimodal(Checked):
    """Of two lengths: `long_share` percent take `long_factor` times as long as the others.

    A percentile falls on one of them or the other; where it is close to 100 - `long_share` it says little.
    """

    mean: Mean = MEAN
    long_share: Annotated[float, Number(0.0, 100.0)] = 1.0
    long_factor: Annotated[float, Number(1.0, 1e6)] = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pareto(Checked):
    """Heavy-tailed; without variance where `alpha` is 2 or less."""

    mean: Mean = MEAN
    alpha: Annotated[float, Number(1.0, 100.0, above=True)] = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Deterministic(Checked):
    """Every request the same."""

    mean: Mean = MEAN


ServiceTime: TypeAlias = Exponential | Hyperexponential | Lognormal | Bimodal | Pareto | Deterministic


def native_form(service_time: ServiceTime) -> tuple[int, float, float, float]:
    """Kind, mean in nanoseconds, shape and factor, as src_ext/workload.pxi has them."""
    mean = service_time.mean * 1e9
    if isinstance(service_time, Exponential):
        return 0, mean, 0.0, 0.0
    if isinstance(service_time, Hyperexponential):
        return 1, mean, service_time.long_share / 100.0, service_time.long_factor
    if isinstance(service_time, Lognormal):
        return 2, mean, service_time.sigma, 0.0
    if isinstance(service_time, Bimodal):
        return 3, mean, service_time.long_share / 100.0, service_time.long_factor
    if isinstance(service_time, Pareto):
        return 4, mean, service_time.alpha, 0.0
    return 5, mean, 0.0, 0.0
