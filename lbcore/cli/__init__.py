"""The command line, `lbcore COMMAND`: a file a command, or a few that belong together.

What a command needs is imported when it runs, so that `lbcore --help` is quick and a missing extra is told by name.
Exit codes: 0 done; 1 it could not be done (nothing answers, no endpoint, the address is taken); 2 the input is wrong
(usage, configuration, an unknown service).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from lbcore.cli.check import add_check
from lbcore.cli.endpoints import add_endpoints
from lbcore.cli.nodes import add_nodes
from lbcore.cli.pick import add_pick
from lbcore.cli.register import add_deregister_and_drain, add_register
from lbcore.cli.serve import add_serve
from lbcore.cli.simulate import add_simulate
from lbcore.errors import ConfigError, InvalidSetting, LbError, UnknownService

__all__ = ["main"]


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
    add_serve(commands)
    add_check(commands)
    add_pick(commands)
    add_endpoints(commands)
    add_simulate(commands)
    add_register(commands)
    add_deregister_and_drain(commands)
    add_nodes(commands)
    return parser


class _Version(argparse.Action):
    """Prints the installed version; looking it up takes time, so not before it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        parser.exit(message=f"lbcore {version('lbcore')}\n")


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of lbcore, and those after `--`: a command to run, where there is one."""
    arguments = list(argv)
    if arguments[:1] != ["register"] or "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _fail(code: int, *lines: str) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return code
