"""Endpoints as targets with labels, and back: what lbcore's `/sd` writes, the `http_sd` source of another lbcore reads.

Labels that begin with `__meta_` are for Prometheus's relabelling and vanish after it (Prometheus docs, http_sd).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from lbcore.address import is_hostname
from lbcore.errors import InvalidSetting
from lbcore.model import Endpoint, Health
from lbcore.validation import refusal

__all__ = ["endpoint_of", "labels_of"]

_PREFIX = "__meta_lbcore_"
_METADATA = f"{_PREFIX}metadata"
_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")  # what may not stand in the name of a label


def labels_of(service: str, endpoint: Endpoint) -> dict[str, str]:
    """All of an endpoint but its address; metadata whole as JSON, and each plain value in a label of its own."""
    labels = {
        f"{_PREFIX}service": service,
        f"{_PREFIX}health": endpoint.health.name.lower(),
        f"{_PREFIX}locality": str(endpoint.locality),
        f"{_PREFIX}priority": str(endpoint.priority),
        f"{_PREFIX}weight": str(endpoint.weight),
    }
    if endpoint.hostname:
        labels[f"{_PREFIX}hostname"] = endpoint.hostname
    if endpoint.metadata:
        labels[_METADATA] = _json(endpoint.metadata)
        for key, value in endpoint.metadata.items():
            labels[f"{_METADATA}_{_NO_LABEL.sub('_', key)}"] = value if isinstance(value, str) else _json(value)
    return labels


def endpoint_of(target: str, labels: Mapping[str, str]) -> Endpoint:
    """The endpoint of a target. Raises `InvalidSetting`."""
    metadata = {name: value for name, value in labels.items() if not name.startswith(_PREFIX)}
    if _METADATA in labels:
        metadata |= _object(labels[_METADATA])
    health = labels.get(f"{_PREFIX}health", "unknown")
    if health.upper() not in Health.__members__:
        raise refusal(f"{_PREFIX}health", health, f"expected one of {', '.join(Health.__members__).lower()}")
    endpoint = Endpoint(
        target,
        health=Health[health.upper()],
        locality=labels.get(f"{_PREFIX}locality", ""),
        priority=_whole(labels, "priority", 0),
        weight=_whole(labels, "weight", 1),
        hostname=labels.get(f"{_PREFIX}hostname", ""),
        metadata=metadata,
    )
    if is_hostname(endpoint.address):
        raise refusal("target", target, "expected an IP address; names are for the source `dns`")
    return endpoint


def _whole(labels: Mapping[str, str], name: str, default: int) -> int:
    text = labels.get(f"{_PREFIX}{name}", "")
    if not re.fullmatch(r"[0-9]{0,12}", text):
        raise refusal(f"{_PREFIX}{name}", text, "expected a whole number")
    return int(text) if text else default


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise InvalidSetting(f"{_METADATA} {text!r:.120}: expected a JSON object") from None


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
