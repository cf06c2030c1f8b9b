"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import grpc

__all__ = ["DEFAULT_GRPC", "Commands", "add_json", "add_server", "count", "credentials_of", "criterion", "pair"]

DEFAULT_GRPC = "127.0.0.1:18000"

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_server(command: argparse.ArgumentParser) -> None:
    command.add_argument("--server", metavar="HOST:PORT", default=DEFAULT_GRPC, help="default %(default)s")
    tls = command.add_argument_group("TLS", "PEM files; any of them has the server called over TLS")
    tls.add_argument("--ca-file", metavar="FILE", default="", help="roots of the server's certificate")
    tls.add_argument("--certificate-file", metavar="FILE", default="", help="of this client, where it needs one")
    tls.add_argument("--private-key-file", metavar="FILE", default="", help="the key to it")


def credentials_of(arguments: argparse.Namespace) -> grpc.ChannelCredentials | None:
    """What `add_server` has asked for: None for a plain connection."""
    files = (arguments.ca_file, arguments.certificate_file, arguments.private_key_file)
    if not any(files):
        return None
    from lbcore.client.channel import tls_credentials

    return tls_credentials(*files)


def add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="for scripts")


def count(text: str, most: int = 1_000_000) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= most):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 1 to {most}")
    return int(text)


def pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r}: expected KEY=VALUE, such as version=2")
    return key, value


def criterion(text: str) -> tuple[str, object]:
    key, value = pair(text)
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
