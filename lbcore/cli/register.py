"""`lbcore register`, `deregister` and `drain`: what the registry holds of a program."""

from __future__ import annotations

import argparse

from lbcore.cli.logs import log_to_stderr, quiet_grpc
from lbcore.cli.options import Commands, add_server, count, credentials_of, pair

__all__ = ["add_deregister_and_drain", "add_register"]


def add_register(commands: Commands) -> None:
    register = commands.add_parser(
        "register",
        help="announce a program while it runs",
        usage="%(prog)s [options] SERVICE ADDRESS [-- COMMAND ...]",
        description=_register.__doc__,
    )
    register.add_argument("service", metavar="SERVICE")
    register.add_argument("address", metavar="ADDRESS", help="IP:PORT, [IPv6]:PORT or unix:/PATH")
    register.add_argument("--weight", metavar="N", type=count, default=1)
    register.add_argument("--locality", metavar="REGION/ZONE/SUB_ZONE", default="")
    register.add_argument("--priority", metavar="N", type=int, default=0)
    register.add_argument("--metadata", metavar="KEY=VALUE", type=pair, action="append", default=[])
    register.add_argument("--ttl", metavar="SECONDS", type=float, default=15.0, help="gone so long after a crash")
    register.add_argument("--drain-time", metavar="SECONDS", type=float, default=5.0, help="DRAINING before it is gone")
    register.add_argument("--at-once", action="store_true", help="do not wait until ADDRESS accepts connections")
    register.set_defaults(run=_register)
    add_server(register)


def add_deregister_and_drain(commands: Commands) -> None:
    deregister = commands.add_parser("deregister", help="remove a registration", description=_deregister.__doc__)
    drain = commands.add_parser("drain", help="take a registration out of rotation", description=_drain.__doc__)
    drain.add_argument("--undo", action="store_true", help="back into rotation")
    for command, run in ((deregister, _deregister), (drain, _drain)):
        command.add_argument("service", metavar="SERVICE")
        command.add_argument("address", metavar="ADDRESS")
        command.set_defaults(run=run)
        add_server(command)


def _register(arguments: argparse.Namespace) -> int:
    """Runs a command, announces ADDRESS as an endpoint of SERVICE once it accepts connections, and withdraws it when
    the command ends; without a command, until a signal. SIGTERM and SIGINT first drain the endpoint, then go on to the
    command; a second one does not wait. Exits as the command does."""
    quiet_grpc()
    log_to_stderr()
    from lbcore.client import Registration
    from lbcore.client.wrapping import run_registered

    registration = Registration(
        arguments.service,
        arguments.address,
        weight=arguments.weight,
        locality=arguments.locality,
        priority=arguments.priority,
        metadata=dict(arguments.metadata),
        target=arguments.server,
        credentials=credentials_of(arguments),
        ttl=arguments.ttl,
        drain_time=arguments.drain_time,
    )
    return run_registered(registration, arguments.command_line, at_once=arguments.at_once)


def _deregister(arguments: argparse.Namespace) -> int:
    """Removes the registration of ADDRESS for SERVICE at once. An agent that still runs announces it again when it
    connects anew: drain what shall stay out of rotation."""
    quiet_grpc()
    from lbcore.address import canonical_address
    from lbcore.client import RegistryClient

    with RegistryClient(arguments.server, credentials=credentials_of(arguments)) as client:
        client.deregister(arguments.service, canonical_address(arguments.address))
    return 0


def _drain(arguments: argparse.Namespace) -> int:
    """Has the registration of ADDRESS for SERVICE show as DRAINING, whatever its agent reports, until it ends."""
    quiet_grpc()
    from lbcore.address import canonical_address
    from lbcore.client import RegistryClient

    with RegistryClient(arguments.server, credentials=credentials_of(arguments)) as client:
        client.drain(arguments.service, canonical_address(arguments.address), undo=arguments.undo)
    return 0
