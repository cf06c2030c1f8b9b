"""`make callgrind`: holds the instructions of the hot paths to the committed counts, within 3 % either way.

Counts depend on interpreter and compiler, so each pair of them has its own in counts.json; `--record` writes those of
the pair at hand. Fewer instructions than committed are a finding too: record them, so that they are held from then on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.callgrind.paths import EMPTY, LONG, SHORT, paths

COUNTS = Path(__file__).with_name("counts.json")
TOLERANCE = 0.03
ROOT = Path(__file__).parents[2]
LABEL = re.compile(r"^desc: Trigger: Client Request: (\d+) (.*)$", re.MULTILINE)
TOTAL = re.compile(r"^totals: (\d+)", re.MULTILINE)


def measured() -> dict[str, float]:
    """Instructions of one evaluation by path, without those of the loop around it."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counts"]
        command += [sys.executable, "-m", "bench.callgrind.paths"]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"valgrind failed:\n{done.stderr[-4000:]}")
        totals: dict[str, dict[int, int]] = {}
        for path in Path(folder).iterdir():
            text = path.read_text()
            label, total = LABEL.search(text), TOTAL.search(text)
            if label and total:
                totals.setdefault(label[2], {})[int(label[1])] = int(total[1])
    each = {name: (by[LONG] - by[SHORT]) / (LONG - SHORT) for name, by in totals.items()}
    return {name: each[name] - each[EMPTY] for name in paths() if name != EMPTY}


def toolchain() -> str:
    """What counts depend on besides lbcore."""
    compiler = subprocess.run(["cc", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    return f"CPython {platform.python_version()}, cc {compiler}, {platform.machine()}"


def compare(now: dict[str, float], committed: dict[str, float]) -> list[str]:
    """Prints the table and returns what is outside the tolerance."""
    findings = []
    print(f"{'path':40} {'now':>10} {'committed':>10} {'change':>8}")
    for name, instructions in now.items():
        before = committed.get(name)
        change = None if before is None else instructions / before - 1
        shown = "new" if change is None else f"{change:+.1%}"
        print(f"{name:40} {instructions:10.1f} {'' if before is None else f'{before:10.1f}':>10} {shown:>8}")
        if change is None or abs(change) > TOLERANCE:
            findings.append(f"{name}: {shown}")
    return findings + [f"{name}: gone" for name in committed if name not in now]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.callgrind", description=__doc__)
    parser.add_argument("--record", action="store_true", help="make the counts of this run the committed ones")
    record = parser.parse_args().record
    all_counts = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    pair = toolchain()
    now = measured()
    findings = compare(now, all_counts.get(pair, {}))
    if record:
        all_counts[pair] = {name: round(instructions, 1) for name, instructions in now.items()}
        COUNTS.write_text(json.dumps(all_counts, indent=2, sort_keys=True) + "\n")
        print(f"recorded for {pair}")
    elif pair not in all_counts:
        sys.exit(
            f"no committed counts for {pair}, only for {'; '.join(all_counts) or 'none'}: record some with --record"
        )
    elif findings:
        sys.exit("outside 3 %: " + "; ".join(findings))


if __name__ == "__main__":
    main()
