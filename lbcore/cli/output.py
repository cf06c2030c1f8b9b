"""What several commands print: tables, and endpoints as JSON."""

from __future__ import annotations

from collections.abc import Iterable

from lbcore.model import Endpoint

__all__ = ["endpoint_json", "print_table"]


def print_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    table = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def endpoint_json(endpoint: Endpoint) -> dict[str, object]:
    return {
        "address": endpoint.address,
        "weight": endpoint.weight,
        "locality": str(endpoint.locality),
        "priority": endpoint.priority,
        "health": endpoint.health.name,
        "hostname": endpoint.hostname,
        "metadata": dict(endpoint.metadata),
    }
