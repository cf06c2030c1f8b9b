"""The command line: `lbcore serve`, `check`, `pick`, `endpoints`, `register`, `deregister`, `drain`, `simulate`.

What each command needs is imported when it runs, so that `lbcore --help` is quick and a missing extra is told by name.
Exit codes: 0 done; 1 it could not be done (nothing answers, no endpoint, the address is taken); 2 the input is wrong
(usage, configuration, an unknown service).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lbcore.errors import ConfigError, InvalidSetting, LbError, UnknownService

if TYPE_CHECKING:
    from lbcore.client import EndpointsUpdate, ServiceStatus
    from lbcore.explanation import Explanation
    from lbcore.model import Endpoint

__all__ = ["main"]

DEFAULT_GRPC = "127.0.0.1:18000"
DEFAULT_ADMIN = "127.0.0.1:9901"

_WATCH_INTERVAL = 0.5  # seconds between two looks at the xDS clients

_COLUMNS = ("SERVICE", "ENDPOINT", "WEIGHT", "LOCALITY", "PRIORITY", "HEALTH", "ACTIVE", "POLICY", "VERSION")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    before, after = _split(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(before)
    arguments.command_line = after
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        code = run(arguments)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        return _fail(2, *error.mistakes)
    except (InvalidSetting, UnknownService) as error:
        return _fail(2, f"lbcore: {error}")
    except LbError as error:
        return _fail(1, f"lbcore: {error}")
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library == "lbcore":
            raise
        extra = "plot" if library == "matplotlib" else "service"
        return _fail(1, f"lbcore: {arguments.command} needs {library}: pip install 'lbcore[{extra}]'")
    except KeyboardInterrupt:
        return 130  # as the shell has it: 128 + SIGINT
    except BrokenPipeError:
        # The reader has what it wants (`lbcore endpoints | head`). Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lbcore", description="Which endpoint gets this request?")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

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
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="check a configuration file", description=_check.__doc__)
    check.add_argument("config", metavar="CONFIG.yaml", type=Path)
    check.set_defaults(run=_check)

    pick = commands.add_parser("pick", help="pick an endpoint of a service", description=_pick.__doc__)
    pick.add_argument("service", metavar="SERVICE")
    pick.add_argument("--key", metavar="K", help="what policies that hash shall hash")
    pick.add_argument(
        "-n",
        metavar="N",
        dest="count",
        type=_count,
        default=1,
        help="with --key the first N endpoints in the key's order of fallback; without, N picks one after another",
    )
    pick.add_argument("--explain", action="store_true", help="show why, stage by stage; the next pick gives the winner")
    pick.add_argument(
        "--subset",
        metavar="KEY=VALUE",
        action="append",
        type=_criterion,
        help="only endpoints with these metadata; may be repeated. A value is JSON where it can be, else text",
    )
    pick.add_argument("--exclude", metavar="ADDRESS", action="append", default=[], help="not this one; may be repeated")
    pick.add_argument("--local-locality", metavar="REGION/ZONE", help="where the request comes from")
    pick.set_defaults(run=_pick)

    endpoints = commands.add_parser("endpoints", help="show endpoints", description=_endpoints.__doc__)
    endpoints.add_argument("service", metavar="SERVICE", nargs="?", default="", help="all services without it")
    endpoints.add_argument("--watch", action="store_true", help="go on, and show each service again when it changes")
    endpoints.set_defaults(run=_endpoints)

    simulate = commands.add_parser(
        "simulate", help="compare policies on a simulated fleet", description=_simulate.__doc__
    )
    simulate.add_argument("scenario", metavar="SCENARIO.yaml", type=Path)
    simulate.add_argument(
        "--policy",
        metavar="P",
        dest="policies",
        action="append",
        help="instead of the scenario's: a name, or {name: {field: value}}; may be given again",
    )
    simulate.add_argument("--seeds", metavar="N", type=_count, default=1, help="show medians over N seeds (default 1)")
    simulate.add_argument(
        "--jobs", metavar="N", type=_count, default=1, help="processes that share the work (default 1)"
    )
    simulate.add_argument("--requests", metavar="N", type=_count_of_requests, help="instead of the scenario's")
    simulate.add_argument("--plot", metavar="OUT.png", type=Path, help="draw it as well; needs lbcore[plot]")
    simulate.set_defaults(run=_simulate)

    register = commands.add_parser(
        "register",
        help="announce a program while it runs",
        usage="%(prog)s [options] SERVICE ADDRESS [-- COMMAND ...]",
        description=_register.__doc__,
    )
    register.add_argument("service", metavar="SERVICE")
    register.add_argument("address", metavar="ADDRESS", help="IP:PORT, [IPv6]:PORT or unix:/PATH")
    register.add_argument("--weight", metavar="N", type=_count, default=1)
    register.add_argument("--locality", metavar="REGION/ZONE/SUB_ZONE", default="")
    register.add_argument("--priority", metavar="N", type=int, default=0)
    register.add_argument("--metadata", metavar="KEY=VALUE", type=_pair, action="append", default=[])
    register.add_argument("--ttl", metavar="SECONDS", type=float, default=15.0, help="gone so long after a crash")
    register.add_argument("--drain-time", metavar="SECONDS", type=float, default=5.0, help="DRAINING before it is gone")
    register.add_argument("--at-once", action="store_true", help="do not wait until ADDRESS accepts connections")
    register.set_defaults(run=_register)

    deregister = commands.add_parser("deregister", help="remove a registration", description=_deregister.__doc__)
    drain = commands.add_parser("drain", help="take a registration out of rotation", description=_drain.__doc__)
    drain.add_argument("--undo", action="store_true", help="back into rotation")
    for command, run in ((deregister, _deregister), (drain, _drain)):
        command.add_argument("service", metavar="SERVICE")
        command.add_argument("address", metavar="ADDRESS")
        command.set_defaults(run=run)

    nodes = commands.add_parser("nodes", help="show xDS clients", description=_nodes.__doc__)
    nodes.add_argument("node", metavar="NODE", nargs="?", default="", help="a client's node.id; all without it")
    nodes.add_argument("--watch", action="store_true", help="go on, and show them again when something changes")
    nodes.set_defaults(run=_nodes)

    for command in (pick, endpoints, nodes, register, deregister, drain):
        command.add_argument("--server", metavar="HOST:PORT", default=DEFAULT_GRPC, help="default %(default)s")
    for command in (check, pick, endpoints, nodes, simulate):
        command.add_argument("--json", action="store_true", help="for scripts")
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    """Serves the endpoints of a configuration file: xDS for Envoy and gRPC, the picker, gRPC health and reflection on
    one port, /ready, /metrics and /clusters on another. Prints one line when ready; port 0 picks a free one."""
    _quiet_grpc()
    _log_to_stderr()
    from lbcore.service.app import serve
    from lbcore.service.binding import Binding

    grpc_binding = Binding.parse(arguments.grpc, "--grpc")
    admin_binding = Binding.parse(arguments.admin, "--admin")
    return serve(arguments.config, grpc_binding, admin_binding, arguments.store)


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


def _pick(arguments: argparse.Namespace) -> int:
    """Asks the picker service which endpoint gets a request, and prints its address."""
    _quiet_grpc()
    from lbcore.client import PickerClient

    service, key, count = arguments.service, arguments.key, arguments.count
    subset = None if arguments.subset is None else dict(arguments.subset)
    place = arguments.local_locality
    if arguments.explain and (count > 1 or arguments.exclude):
        raise InvalidSetting("--explain: expected without -n and --exclude, because it explains a single first pick")
    with PickerClient(arguments.server) as client:
        if arguments.explain:
            _show_explanation(client.explain(service, key, subset=subset, local_locality=place), arguments)
            return 0
        endpoints: Iterable[Endpoint]
        if key is not None or count == 1 or arguments.exclude:
            exclude = arguments.exclude
            endpoints = client.rank(service, key, count, exclude=exclude, subset=subset, local_locality=place)
        else:
            endpoints = client.pick_many(service, count, subset=subset, local_locality=place)
        if arguments.json:
            print(json.dumps({"service": arguments.service, "endpoints": [_endpoint_json(each) for each in endpoints]}))
        else:
            for each in endpoints:
                print(each.address)
    return 0


def _show_explanation(explanation: Explanation, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps({"service": arguments.service, **_explanation_json(explanation)}))
    else:
        print(explanation)


def _explanation_json(explanation: Explanation) -> dict[str, object]:
    shares = explanation.locality_shares
    return {
        "cluster": explanation.cluster,
        "policy": explanation.policy,
        "hash": explanation.hash,
        "priorities": [asdict(level) for level in explanation.priorities],
        "percent": explanation.percent,
        "priority": explanation.priority,
        "degraded": explanation.degraded,
        "locality_shares": None if shares is None else {str(place): share for place, share in shares.items()},
        "candidates": [
            {"address": each.endpoint.address, "weight": each.weight, "active": each.active}
            for each in explanation.candidates
        ],
        "probes": [each.address for each in explanation.probes],
        "winner": None if explanation.winner is None else _endpoint_json(explanation.winner),
        "reason": explanation.reason,
    }


def _endpoints(arguments: argparse.Namespace) -> int:
    """Shows endpoints with weight, locality, priority, health and why, requests under a lease, policy and version."""
    _quiet_grpc()
    from lbcore.client import PickerClient

    show = _show_json if arguments.json else _show_table
    with PickerClient(arguments.server) as client:
        for update in client.watch(arguments.service):
            show(update)
            sys.stdout.flush()
            if not arguments.watch:
                break
    return 0


def _simulate(arguments: argparse.Namespace) -> int:
    """Runs a fleet through lbcore's own policies under a virtual clock, and shows latencies, errors and use of the
    servers beside what one would reach who knows all: JSQ joins the shortest queue, SED knows the speeds as well."""
    from lbcore.simulation import run
    from lbcore.simulation.progress import ProgressBar
    from lbcore.simulation.scenario_file import load_scenario, parse_policy

    if arguments.plot is not None:
        from lbcore.simulation.plot import draw  # now, because it may be missing

    scenario = load_scenario(arguments.scenario)
    if arguments.requests is not None:
        scenario = scenario.with_requests(arguments.requests)
    policies = [parse_policy(each) for each in arguments.policies] if arguments.policies else None
    with ProgressBar() as progress:
        report = run(scenario, policies=policies, seeds=arguments.seeds, jobs=arguments.jobs, progress=progress)
    if arguments.plot is not None:
        draw(report, arguments.plot, arguments.scenario.stem)
    print(json.dumps(report.as_json()) if arguments.json else report)
    return 0


def _register(arguments: argparse.Namespace) -> int:
    """Runs a command, announces ADDRESS as an endpoint of SERVICE once it accepts connections, and withdraws it when
    the command ends; without a command, until a signal. SIGTERM and SIGINT first drain the endpoint, then go on to the
    command; a second one does not wait. Exits as the command does."""
    _quiet_grpc()
    _log_to_stderr()
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
        ttl=arguments.ttl,
        drain_time=arguments.drain_time,
    )
    return run_registered(registration, arguments.command_line, at_once=arguments.at_once)


def _deregister(arguments: argparse.Namespace) -> int:
    """Removes the registration of ADDRESS for SERVICE at once. An agent that still runs announces it again when it
    connects anew: drain what shall stay out of rotation."""
    _quiet_grpc()
    from lbcore.address import canonical_address
    from lbcore.client import RegistryClient

    with RegistryClient(arguments.server) as client:
        client.deregister(arguments.service, canonical_address(arguments.address))
    return 0


def _drain(arguments: argparse.Namespace) -> int:
    """Has the registration of ADDRESS for SERVICE show as DRAINING, whatever its agent reports, until it ends."""
    _quiet_grpc()
    from lbcore.address import canonical_address
    from lbcore.client import RegistryClient

    with RegistryClient(arguments.server) as client:
        client.drain(arguments.service, canonical_address(arguments.address), undo=arguments.undo)
    return 0


def _nodes(arguments: argparse.Namespace) -> int:
    """Shows the xDS clients (Envoy, gRPC): what each was sent of each type, and why it refused what it refused."""
    _quiet_grpc()
    from lbcore.client.nodes import COLUMNS, fetch_nodes, node_json, node_row

    shown: object = None
    while True:
        nodes = fetch_nodes(arguments.node, arguments.server)
        if nodes != shown:
            if arguments.json:
                print(json.dumps({"nodes": [node_json(each) for each in nodes]}))
            else:
                _print_table(COLUMNS, map(node_row, nodes))
            sys.stdout.flush()
        if not arguments.watch:
            return 0
        shown = nodes
        time.sleep(_WATCH_INTERVAL)


def _print_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    table = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


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
        _print_table((*_COLUMNS, "REASON") if shown else _COLUMNS, rows if shown else [row[:-1] for row in rows])
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
        "endpoints": [_endpoint_json(e.endpoint) | {"active": e.active, "reason": e.reason} for e in service.endpoints],
    }


def _endpoint_json(endpoint: Endpoint) -> dict[str, object]:
    return {
        "address": endpoint.address,
        "weight": endpoint.weight,
        "locality": str(endpoint.locality),
        "priority": endpoint.priority,
        "health": endpoint.health.name,
        "hostname": endpoint.hostname,
        "metadata": dict(endpoint.metadata),
    }


class _Version(argparse.Action):
    """Prints the installed version; looking it up takes time, so not before it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        parser.exit(message=f"lbcore {version('lbcore')}\n")


def _criterion(text: str) -> tuple[str, object]:
    key, separator, value = text.partition("=")
    if not (key and separator):
        raise argparse.ArgumentTypeError(f"{text!r}: expected KEY=VALUE, such as version=2")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _count(text: str, most: int = 1_000_000) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= most):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 1 to {most}")
    return int(text)


def _count_of_requests(text: str) -> int:
    return _count(text, 100_000_000)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of lbcore, and those after `--`: a command to run, where there is one."""
    arguments = list(argv)
    if arguments[:1] != ["register"] or "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r}: expected KEY=VALUE")
    return key, value


def _quiet_grpc() -> None:
    """Keeps grpc's own log of C++ off stderr: every failure is told by its message. GRPC_VERBOSITY brings it back."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _log_to_stderr() -> None:
    """What the service itself does from INFO on; of libraries what is a warning."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("lbcore").setLevel(logging.INFO)


def _fail(code: int, *lines: str) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
