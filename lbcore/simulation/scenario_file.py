"""Scenario files: YAML decoded into a `Scenario` by the same rules as the configuration file, mistakes told alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lbcore.config import read, shown
from lbcore.config.decoding import MISSING, Decoder
from lbcore.config.document import Malformed, compose
from lbcore.errors import ConfigError
from lbcore.policy import Policy
from lbcore.simulation.scenario import Scenario

__all__ = ["load_scenario", "parse_policy", "parse_scenario"]


def load_scenario(path: Path) -> Scenario:
    """Reads a scenario file. Raises `ConfigError` with all its mistakes, also where it cannot be read."""
    return parse_scenario(read(path), shown(path))


def parse_scenario(content: bytes | str, file: str) -> Scenario:
    """Decodes a scenario; `file` is its name in messages.

    >>> parse_scenario("{fleet: {servers: [{count: 3}]}, traffic: {load: 0}}", "three.yaml")
    Traceback (most recent call last):
    lbcore.errors.ConfigError: three.yaml:1: traffic.load: load 0: expected a number, more than 0, at most 1000
    """
    scenario: Scenario = _decoded(Scenario, content, file)
    return scenario


def parse_policy(text: str) -> Policy:
    """A policy as the configuration file writes it: its name, or `{name: {field: value}}`. Raises `ConfigError`.

    >>> parse_policy("{least_request: {selection_method: full_scan}}").selection_method
    'full_scan'
    """
    policy: Policy = _decoded(Policy, text, "policy")
    return policy


def _decoded(kind: Any, content: bytes | str, file: str) -> Any:
    decoder = Decoder()
    try:
        text = content if isinstance(content, str) else content.decode()
        root = compose(text)
        if root is None or root.is_null:
            raise Malformed(1, "empty")
        value = decoder.value(kind, root, ())
    except UnicodeDecodeError as wrong:
        raise ConfigError((f"{file}: byte {wrong.start}: expected UTF-8",)) from None
    except Malformed as wrong:
        raise ConfigError((f"{file}:{wrong.line}: {wrong}",)) from None
    if decoder.mistakes or value is MISSING:
        raise ConfigError(tuple(f"{file}:{line}: {what}" for line, what in sorted(decoder.mistakes)))
    return value
