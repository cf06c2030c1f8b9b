"""`lbcore serve`: the service."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from lbcore.cli.logs import log_to_stderr, quiet_grpc
from lbcore.cli.options import DEFAULT_GRPC, Commands, count

DEFAULT_ADMIN = "127.0.0.1:9901"

__all__ = ["add_serve"]


def add_serve(commands: Commands) -> None:
    serve = commands.add_parser("serve", help="run the picker and xDS service", description=_serve.__doc__)
    serve.add_argument("config", metavar="CONFIG.yaml", type=Path, help="followed: a changed file is taken at once")
    serve.add_argument("--grpc", metavar="HOST:PORT", default=DEFAULT_GRPC, help="xDS and picker (default %(default)s)")
    serve.add_argument("--admin", metavar="HOST:PORT", default=DEFAULT_ADMIN, help="HTTP (default %(default)s)")
    serve.add_argument(
        "--store",
        metavar="STORE",
        default="",
        help="where registrations are kept: etcd://HOST:PORT,.../PREFIX, sqlite:PATH or memory "
        "(default NAME.registry.db beside CONFIG)",
    )
    serve.add_argument(
        "--workers",
        metavar="N",
        type=partial(count, most=1024),
        default=0,
        help="processes that carry the xDS streams, so that more cores carry more of them (default: this one alone)",
    )
    serve.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    """Serves the endpoints of a configuration file: xDS for Envoy and gRPC, the picker, gRPC health and reflection on
    one port, /ready, /metrics and /clusters on another. Prints one line when ready; port 0 picks a free one."""
    quiet_grpc()
    log_to_stderr()
    from lbcore.service.app import serve
    from lbcore.service.binding import Binding

    grpc_binding = Binding.parse(arguments.grpc, "--grpc")
    admin_binding = Binding.parse(arguments.admin, "--admin")
    return serve(arguments.config, grpc_binding, admin_binding, arguments.store, arguments.workers)
