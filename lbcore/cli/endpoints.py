"""`lbcore endpoints`: what the service knows of endpoints, once or as it changes."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from lbcore.cli.logs import quiet_grpc
from lbcore.cli.options import Commands, add_json, add_server, credentials_of
from lbcore.cli.output import endpoint_json, print_table

if TYPE_CHECKING:
    from lbcore.client import EndpointsUpdate, ServiceStatus

_COLUMNS = ("SERVICE", "ENDPOINT", "WEIGHT", "LOCALITY", "PRIORITY", "HEALTH", "ACTIVE", "POLICY", "VERSION")

__all__ = ["add_endpoints"]


def add_endpoints(commands: Commands) -> None:
    endpoints = commands.add_parser("endpoints", help="show endpoints", description=_endpoints.__doc__)
    endpoints.add_argument("service", metavar="SERVICE", nargs="?", default="", help="all services without it")
    endpoints.add_argument("--watch", action="store_true", help="go on, and show each service again when it changes")
    endpoints.set_defaults(run=_endpoints)
    add_server(endpoints)
    add_json(endpoints)


def _endpoints(arguments: argparse.Namespace) -> int:
    """Shows endpoints with weight, locality, priority, health and why, requests under a lease, policy and version."""
    quiet_grpc()
    from lbcore.client import PickerClient

    show = _show_json if arguments.json else _show_table
    with PickerClient(arguments.server, credentials=credentials_of(arguments)) as client:
        for update in client.watch(arguments.service):
            show(update)
            sys.stdout.flush()
            if not arguments.watch:
                break
    return 0


def _show_json(update: EndpointsUpdate) -> None:
    print(
        json.dumps(
            {
                "services": [_service_json(service) for service in update.services],
                "removed": list(update.removed),
                "stale": dict(update.stale),
            }
        )
    )


def _show_table(update: EndpointsUpdate) -> None:
    rows = [row for service in update.services for row in _rows(service)]
    if rows:
        shown = any(row[-1] for row in rows)  # the reason why the health is what it is
        print_table((*_COLUMNS, "REASON") if shown else _COLUMNS, rows if shown else [row[:-1] for row in rows])
    for name in update.removed:
        print(f"service {name} is gone")
    for source, reason in update.stale.items():
        print(f"source {source} is stale: {reason}")


def _rows(service: ServiceStatus) -> list[tuple[str, ...]]:
    tail = (service.policy, service.version)
    if not service.endpoints:
        return [(service.name, *["-"] * 6, *tail, "")]
    return [
        (
            service.name,
            each.endpoint.address,
            str(each.endpoint.weight),
            str(each.endpoint.locality) or "-",
            str(each.endpoint.priority),
            each.endpoint.health.name,
            str(each.active),
            *tail,
            each.reason,
        )
        for each in service.endpoints
    ]


def _service_json(service: ServiceStatus) -> dict[str, object]:
    return {
        "service": service.name,
        "policy": service.policy,
        "version": service.version,
        "endpoints": [endpoint_json(e.endpoint) | {"active": e.active, "reason": e.reason} for e in service.endpoints],
    }
