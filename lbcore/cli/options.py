"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import json
from typing import TypeAlias

__all__ = ["DEFAULT_GRPC", "Commands", "add_json", "add_server", "count", "criterion", "pair"]

DEFAULT_GRPC = "127.0.0.1:18000"

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_server(command: argparse.ArgumentParser) -> None:
    command.add_argument("--server", metavar="HOST:PORT", default=DEFAULT_GRPC, help="default %(default)s")


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
