"""ORCA load reports as servers send them: in gRPC trailers and HTTP headers, read as `LoadReport`.

`endpoint-load-metrics-bin` holds a serialized xds.data.orca.v3.OrcaLoadReport, as bytes (gRPC) or in base64 (HTTP);
`endpoint-load-metrics` holds `TEXT name=value, ...`, `JSON {...}` or `BIN` and base64. Requests in flight come as the
named metric `rif`. What cannot be read is an `InvalidReport`: an answer may be good where its report is not, so callers
go on. Protobuf is needed for the binary forms alone, and imported when the first one comes.

References: gRFC A51; Envoy source/common/orca/orca_parser.cc.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from lbcore.errors import InvalidSetting, LbError
from lbcore.model import LoadReport

__all__ = ["InvalidReport", "load_report_from_binary", "load_report_from_headers", "load_report_from_text"]

HEADER = "endpoint-load-metrics"
BINARY_HEADER = "endpoint-load-metrics-bin"
REQUESTS_IN_FLIGHT = "rif"  # the named metric
FIELDS = ("cpu_utilization", "application_utilization", "mem_utilization", "rps_fractional", "eps")
MOST_BYTES = 65_536  # of one report

Text = str | bytes


class InvalidReport(LbError, ValueError):
    """A load report that cannot be read."""


def load_report_from_headers(headers: Mapping[Any, Any] | Iterable[tuple[Text, Text]]) -> LoadReport | None:
    """The report in HTTP response headers, or in the trailing metadata of a gRPC call; None where there is none.

    Args:
        headers: a mapping, or pairs of name and value; names in any case. gRPC's pairs may hold bytes.

    Raises `InvalidReport`.

    >>> load_report_from_headers({"endpoint-load-metrics": "TEXT cpu_utilization=0.3, named_metrics.rif=4"}).rif
    4
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    for name, value in pairs:
        found = _text(name).lower()
        if found == BINARY_HEADER:
            return load_report_from_binary(value if isinstance(value, bytes) else _from_base64(value))
        if found == HEADER:
            return load_report_from_text(value)
    return None


def load_report_from_text(value: Text) -> LoadReport:
    """The report in a value of `endpoint-load-metrics`: `TEXT ...`, `JSON ...` or `BIN ...`. Raises `InvalidReport`.

    >>> load_report_from_text('JSON {"rps_fractional": 10, "cpu_utilization": 0.5}').cpu_utilization
    0.5
    """
    text = _text(value)
    if len(text) > MOST_BYTES:
        raise InvalidReport(f"load report of {len(text)} characters: expected at most {MOST_BYTES}")
    kind, _, content = text.partition(" ")
    if kind == "TEXT":
        return _report(_text_metrics(content))
    if kind == "JSON":
        return _report(_json_metrics(content))
    if kind == "BIN":
        return load_report_from_binary(_from_base64(content.strip()))
    raise InvalidReport(f"load report {text[:40]!r}: expected it to begin with TEXT, JSON or BIN")


def load_report_from_binary(content: bytes) -> LoadReport:
    """The report in a serialized xds.data.orca.v3.OrcaLoadReport.

    Raises `InvalidReport`; ImportError without protobuf.
    """
    from google.protobuf.message import DecodeError
    from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport

    if len(content) > MOST_BYTES:
        raise InvalidReport(f"load report of {len(content)} bytes: expected at most {MOST_BYTES}")
    try:
        message = OrcaLoadReport.FromString(bytes(content))
    except DecodeError as wrong:
        raise InvalidReport(f"load report: expected an OrcaLoadReport, {wrong}") from None
    metrics = {name: float(getattr(message, name)) for name in FIELDS}
    if not metrics["rps_fractional"]:
        metrics["rps_fractional"] = float(message.rps)  # what it was before it had fractions
    return _report(metrics | {f"named_metrics.{name}": value for name, value in message.named_metrics.items()})


def _text_metrics(content: str) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for part in content.split(","):
        name, equals, value = part.partition("=" if "=" in part else ":")
        name = name.strip()
        if not name or not equals:
            raise InvalidReport(f"load report, {part[:40]!r}: expected name=value")
        if name in metrics:
            raise InvalidReport(f"load report, {name[:40]!r}: expected each metric once")
        metrics[name] = _number(name, value.strip())
    return metrics


def _json_metrics(content: str) -> dict[str, float]:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as wrong:
        raise InvalidReport(f"load report: expected JSON, {wrong}") from None
    if not isinstance(values, dict):
        raise InvalidReport(f"load report: expected a JSON object, got {type(values).__name__}")
    metrics: dict[str, float] = {}
    for key, value in values.items():
        name = _CAMEL.get(str(key), str(key))
        if isinstance(value, dict):
            metrics.update((f"{name}.{inner}", _number(inner, each)) for inner, each in value.items())
        else:
            metrics[name] = _number(name, value)
    return metrics


_CAMEL = {  # protobuf's JSON names
    "cpuUtilization": "cpu_utilization",
    "applicationUtilization": "application_utilization",
    "memUtilization": "mem_utilization",
    "rpsFractional": "rps_fractional",
    "namedMetrics": "named_metrics",
}


def _number(name: str, value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) and isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidReport(f"load report, {name[:40]}={str(value)[:40]!r}: expected a finite number")
    return number


def _report(metrics: Mapping[str, float]) -> LoadReport:
    """Metrics that are neither fields nor named are left aside: reports grow new ones."""
    named = {name[14:]: value for name, value in metrics.items() if name.startswith("named_metrics.")}
    rif = named.get(REQUESTS_IN_FLIGHT)
    try:
        return LoadReport(
            rif=None if rif is None else min(round(rif), 2**63 - 1),
            named_metrics=named,
            **{name: metrics[name] for name in FIELDS if name in metrics},
        )
    except InvalidSetting as wrong:
        raise InvalidReport(f"load report, {wrong}") from None


def _from_base64(value: Text) -> bytes:
    """With or without padding, as gRPC sends it over HTTP."""
    content = value.encode("latin-1", "replace") if isinstance(value, str) else value
    if len(content) > 2 * MOST_BYTES:
        raise InvalidReport(f"load report of {len(content)} bytes in base64: expected at most {2 * MOST_BYTES}")
    try:
        return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidReport(f"load report {content[:40]!r}: expected base64") from None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value
    raise InvalidReport(f"load report, {type(value).__name__}: expected str or bytes")
