"""docs/configuration.md names every field that the file may have, and its examples decode."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from lbcore.access import Grant, ServerTls
from lbcore.config import parse
from lbcore.fault import Fault, FaultAbort, FaultDelay
from lbcore.model import Endpoint
from lbcore.policy import Policy
from lbcore.request_hash import HashMethod
from lbcore.retry import RetryBackOff, RetryPolicy
from lbcore.routing import Listener, Route, RouteAction
from lbcore.schema import fields_of
from lbcore.settings import (
    CheckTls,
    CircuitBreakers,
    DropOverload,
    GrpcHealthCheck,
    HealthCheck,
    HttpHealthCheck,
    OutlierDetection,
    SlowStart,
    StatusRange,
    TcpHealthCheck,
    ZoneAware,
)
from lbcore.snapshot import ServiceSnapshot
from lbcore.source import Source
from lbcore.subset import Subsets, SubsetSelector

TEXT = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
VALUES = (
    *get_args(Policy),
    *get_args(HashMethod),
    *get_args(Source),
    *(CircuitBreakers, DropOverload, OutlierDetection, SlowStart),
    *(HealthCheck, HttpHealthCheck, TcpHealthCheck, GrpcHealthCheck, CheckTls, StatusRange),
    *(Endpoint, Listener, Route, RouteAction, ServiceSnapshot, Subsets, SubsetSelector, ZoneAware),
    *(ServerTls, Grant),
    *(Fault, FaultAbort, FaultDelay, RetryBackOff, RetryPolicy),
)
WRITTEN_OTHERWISE = {"locality_weights": "localities"}


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_every_field_is_described(value: type) -> None:
    names = {WRITTEN_OTHERWISE.get(name, name) for name in fields_of(value)}
    assert {name for name in names if not re.search(rf"\b{name}\b", TEXT)} == set()


def test_the_examples_decode() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert examples
    for example in examples:
        parse(example, "configuration.md")
