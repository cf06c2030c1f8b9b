"""The hash rings and Maglev tables that Envoy prints at `--component-log-level upstream:trace`, cluster by cluster.

Envoy (ring_hash_lb.cc, maglev_lb.cc) prints a ring's points in order and a table's slots in order, each with the text
it hashed for the host; the lines stand after `initializing Primary cluster NAME completed`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["PrintedTables", "printed_tables"]

_CLUSTER = re.compile(r"initializing Primary cluster (\S+) completed")
_POINT = re.compile(r"ring hash: host=(\S+) hash=(\d+)")
_SLOT = re.compile(r"maglev: i=(\d+) address=\S+ host=(\S+)")


@dataclass
class PrintedTables:
    """What Envoy built for one cluster. A host is the text that was hashed for it."""

    ring: list[tuple[int, str]] = field(default_factory=list)  # hash of the point, host
    slots: list[str] = field(default_factory=list)  # host of each Maglev slot; none where there is one host


def printed_tables(log: str) -> dict[str, PrintedTables]:
    """The tables in a log by cluster, each cluster having one priority."""
    tables: dict[str, PrintedTables] = {}
    current = PrintedTables()
    for line in log.splitlines():
        if point := _POINT.search(line):
            current.ring.append((int(point[2]), point[1]))
        elif slot := _SLOT.search(line):
            assert int(slot[1]) == len(current.slots), f"slots out of order: {line}"
            current.slots.append(slot[2])
        elif name := _CLUSTER.search(line):
            current = tables[name[1]] = PrintedTables()
    return tables
