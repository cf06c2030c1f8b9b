"""How much the constants of the default policy matter that are no settings: `make simulate ARGS=--constants`.

Each value takes a build of the core from a changed copy of its source, which takes half a minute or more.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.simulation.sweeps import LINES, P99_TO_JSQ, grows
from lbcore import Adaptive
from lbcore.simulation import Baseline, run_once
from lbcore.simulation.report import contender_name

__all__ = ["constant_tables"]

ROOT = Path(__file__).parents[2]
COPIED = ("src_ext", "lbcore", "bench", "setup.py", "pyproject.toml", "README.md", "MANIFEST.in")
SEED = 1


@dataclass(frozen=True)
class Constant:
    """One that `file` defines as `name = value`; `values` are tried beside its own."""

    name: str
    values: tuple[str, ...]
    file: str = "src_ext/adaptive.pxi"

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(rf"(\b{self.name} = )([0-9.]+)")

    @property
    def own(self) -> str:
        """As it stands in the source."""
        [(_, value)] = self.pattern.findall((ROOT / self.file).read_text())
        return str(value)


CONSTANTS = (
    Constant("DEVIATIONS", ("2", "5")),
    Constant("LATELY", ("1", "10")),
    Constant("RATIO_STEP", ("0.02", "0.5")),
    Constant("WORKERS_STEP", ("0.002", "0.05")),
    Constant("LEAST_FLUCTUATION", ("0.0001", "0.01")),
    Constant("JUDGED_BY", ("10.0", "40.0")),
    Constant("PROBATION", ("3", "30"), "src_ext/peak_ewma.pxi"),
    Constant("FLEET_MEMORY", ("200", "5000"), "src_ext/peak_ewma.pxi"),
)


def constant_tables(only: str = "") -> Iterator[str]:
    """Markdown, one seed."""
    chosen = [each for each in CONSTANTS if only in each.name]
    columns = [measure()]
    names = ["as it is"]
    for constant in chosen:
        for value in constant.values:
            names.append(f"{constant.name} {value}, not {constant.own}")
            columns.append(measure_with(constant, value))
    yield f"| | {' | '.join(line.name for line in LINES)} |"
    yield "|---" * (len(LINES) + 1) + "|"
    for name, cells in zip(names, columns, strict=True):
        yield f"| {name} | {' | '.join(cells)} |"


def measure_with(constant: Constant, value: str) -> list[str]:
    """The cells of a core that is built with another value."""
    with tempfile.TemporaryDirectory() as place:
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, Path(place, name), ignore=shutil.ignore_patterns("_core*.so", "__pycache__"))
            else:
                shutil.copy(source, place)
        changed = Path(place, constant.file)
        changed.write_text(constant.pattern.sub(rf"\g<1>{value}", changed.read_text()))
        build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        subprocess.run(build, cwd=place, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        told = subprocess.run([sys.executable, "-m", __name__], cwd=place, check=True, stdout=subprocess.PIPE).stdout
    cells: list[str] = json.loads(told)
    return cells


def measure() -> list[str]:
    """A cell a line, of the core that is imported."""
    cells = []
    for line in LINES:
        outcomes = {contender_name(Adaptive()): run_once(line.scenario, Adaptive(), SEED)}
        if line.figure is P99_TO_JSQ:
            outcomes["jsq"] = run_once(line.scenario, Baseline.JSQ, SEED)
        [own, *_] = outcomes.values()
        cells.append(f"{line.figure(outcomes, contender_name(Adaptive())):.3g}" + " **grows**" * grows(line, own))
    return cells


if __name__ == "__main__":
    print(json.dumps(measure()))
