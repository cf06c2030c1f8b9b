"""`lbcore check`: whether a configuration file is good."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lbcore.cli.options import Commands, add_json
from lbcore.errors import ConfigError

__all__ = ["add_check"]


def add_check(commands: Commands) -> None:
    check = commands.add_parser("check", help="check a configuration file", description=_check.__doc__)
    check.add_argument("config", metavar="CONFIG.yaml", type=Path)
    check.set_defaults(run=_check)
    add_json(check)


def _check(arguments: argparse.Namespace) -> int:
    """Checks a configuration file: exit code 0, or 2 with file, line and field of every mistake."""
    from lbcore.config import load

    try:
        configuration = load(arguments.config)
    except ConfigError as error:
        if not arguments.json:
            raise
        print(json.dumps({"ok": False, "mistakes": list(error.mistakes)}))
        return 2
    services = len(configuration.services)
    endpoints = sum(len(service.endpoints) for service in configuration.services)
    if arguments.json:
        print(json.dumps({"ok": True, "services": services, "endpoints": endpoints}))
    else:
        print(f"{arguments.config}: good, services: {services}, endpoints: {endpoints}")
    return 0
