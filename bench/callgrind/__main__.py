"""`make callgrind`: instructions a call of the ten hottest paths, held within 3 % of instructions.json.

Counted by valgrind as the difference of two loop lengths, so that starting up does not count. A count depends on the
interpreter and the compiler: `--update` writes the file anew after a change of either, or one that is meant.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from bench.callgrind.paths import PATHS

COMMITTED = Path(__file__).with_name("instructions.json")
SHORT, LONG = 2_000, 12_000  # calls
TOLERANCE = 0.03


def instructions(name: str, count: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
    command += ["-m", "bench.callgrind.paths", name, str(count)]
    quiet = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=300, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise SystemExit(f"valgrind said no count:\n{done.stderr}")
    return int(found[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.callgrind", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the counts instead of comparing them")
    update = parser.parse_args().update
    committed = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {"counts": {}}
    counts: dict[str, int] = {}
    worse = 0
    for name in PATHS:
        counts[name] = round((instructions(name, LONG) - instructions(name, SHORT)) / (LONG - SHORT))
        before = committed["counts"].get(name)
        beyond = before is not None and abs(counts[name] - before) > TOLERANCE * before
        worse += beyond
        print(f"{name:42} {counts[name]:7} committed {before or '-':>7} {'OUTSIDE 3 %' if beyond else ''}", flush=True)
    if update:
        built_by = f"CPython {platform.python_version()}, {platform.machine()}"
        COMMITTED.write_text(json.dumps({"interpreter": built_by, "counts": counts}, indent=2) + "\n")
        return 0
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
