"""`lbcore nodes`: the xDS clients, once or as they change."""

from __future__ import annotations

import argparse
import json
import sys
import time

from lbcore.cli.logs import quiet_grpc
from lbcore.cli.options import Commands, add_json, add_server, credentials_of
from lbcore.cli.output import print_table

_WATCH_INTERVAL = 0.5  # seconds between two looks

__all__ = ["add_nodes"]


def add_nodes(commands: Commands) -> None:
    nodes = commands.add_parser("nodes", help="show xDS clients", description=_nodes.__doc__)
    nodes.add_argument("node", metavar="NODE", nargs="?", default="", help="a client's node.id; all without it")
    nodes.add_argument("--watch", action="store_true", help="go on, and show them again when something changes")
    nodes.set_defaults(run=_nodes)
    add_server(nodes)
    add_json(nodes)


def _nodes(arguments: argparse.Namespace) -> int:
    """Shows the xDS clients (Envoy, gRPC): what each was sent of each type, and why it refused what it refused."""
    quiet_grpc()
    from lbcore.client.nodes import COLUMNS, fetch_nodes, node_json, node_row

    credentials = credentials_of(arguments)
    shown: object = None
    while True:
        nodes = fetch_nodes(arguments.node, arguments.server, credentials=credentials)
        if nodes != shown:
            if arguments.json:
                print(json.dumps({"nodes": [node_json(each) for each in nodes]}))
            else:
                print_table(COLUMNS, map(node_row, nodes))
            sys.stdout.flush()
        if not arguments.watch:
            return 0
        shown = nodes
        time.sleep(_WATCH_INTERVAL)
