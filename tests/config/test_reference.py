"""docs/configuration.md says of every field what the code does: its range and default; its example is valid."""

from __future__ import annotations

import enum
import inspect
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from lbcore.config import parse
from lbcore.config.services import WrittenService
from lbcore.delivery import XdsDelivery
from lbcore.fault import Fault, FaultAbort, FaultDelay
from lbcore.model import Endpoint, Locality
from lbcore.policy import Policy
from lbcore.registration import RegistrySettings
from lbcore.request_hash import HashMethod, RegexRewrite
from lbcore.retry import RetryBackOff, RetryPolicy
from lbcore.routing import Listener, Route, RouteAction
from lbcore.schema import Field, fields_of, snake_case
from lbcore.settings import (
    CheckTls,
    CircuitBreakers,
    DropOverload,
    GrpcHealthCheck,
    HeaderValue,
    HealthCheck,
    HttpHealthCheck,
    OutlierDetection,
    PerHostThresholds,
    RetryBudget,
    SlowStart,
    StatusRange,
    StringMatcher,
    TcpHealthCheck,
    ZoneAware,
)
from lbcore.snapshot import ServiceSnapshot
from lbcore.source import Source
from lbcore.subset import Subsets, SubsetSelector
from lbcore.subsetting import Subsetting
from lbcore.validation import MAX_SECONDS, Number, Seconds, Whole

REFERENCE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")

SECTIONS: dict[str, type] = {
    "## A service": ServiceSnapshot,
    "### `endpoints`": Endpoint,
    "#### `slow_start`": SlowStart,
    "#### `zone_aware`": ZoneAware,
    "### `subsets`": Subsets,
    "#### `selectors`": SubsetSelector,
    "### `health_check`": HealthCheck,
    "#### `http`": HttpHealthCheck,
    "#### `tcp`": TcpHealthCheck,
    "#### `grpc`": GrpcHealthCheck,
    "#### `request_headers_to_add`": HeaderValue,
    "#### `service_name_matcher`": StringMatcher,
    "#### `tls`": CheckTls,
    "#### `expected_statuses`": StatusRange,
    "### `outlier_detection`": OutlierDetection,
    "### `circuit_breakers`": CircuitBreakers,
    "#### `retry_budget`": RetryBudget,
    "#### `per_host_thresholds`": PerHostThresholds,
    "### `drop_overload`": DropOverload,
    "## `listeners`": Listener,
    "### `route`": RouteAction,
    "## `xds`": XdsDelivery,
    "## `registry`": RegistrySettings,
    "### `retry`": RetryPolicy,
    "#### `retry_back_off`": RetryBackOff,
    "### `fault`": Fault,
    "#### `delay`": FaultDelay,
    "#### `abort`": FaultAbort,
    "### `routes`": Route,
    "#### `regex_rewrite`": RegexRewrite,
    **{f"#### `{snake_case(kind.__name__)}`": kind for kind in get_args(Source)},
    **{f"#### `{snake_case(kind.__name__)}`": kind for kind in get_args(HashMethod)},
    **{f"#### `{snake_case(kind.__name__)}`": kind for kind in get_args(Subsetting)},
    **{f"#### `{snake_case(kind.__name__)}`": kind for kind in get_args(Policy) if fields_of(kind)},
}


def rows(section: str) -> dict[str, tuple[str, str]]:
    """Range and default of each field in the table of a section."""
    assert f"\n{section}\n" in REFERENCE, f"{section} is missing"
    body = re.split(r"\n#+ ", REFERENCE.split(f"\n{section}\n", 1)[1], maxsplit=1)[0]
    lines = [[cell.strip() for cell in line.split("|")] for line in body.splitlines() if re.match(r"\| `\w+` ", line)]
    return {field.strip("`"): (allowed, default) for _, field, _, allowed, default, _ in lines}


def written_fields(kind: type) -> dict[str, Field]:
    fields = dict(fields_of(kind))
    if kind is ServiceSnapshot:
        del fields["name"]
        fields["localities"] = fields.pop("locality_weights")
        fields["source"] = fields_of(WrittenService)["source"]
    if kind is Route:  # the others are described with `route`
        fields = {name: field for name, field in fields.items() if name not in fields_of(RouteAction)}
    return fields


def default_of(kind: type, field: Field) -> str:
    if field.required:
        return "required"
    owner = WrittenService if field.name == "source" else kind
    value: Any = inspect.signature(owner).parameters[field.name].default
    if field.name == "policy":
        return "`round_robin`"
    if value is None or type(value).__name__ == "_HAS_DEFAULT_FACTORY_CLASS" or value == ():
        return "none"
    if value in ("", Locality(), {}):
        return "empty"
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, enum.Enum | bool):
        return f"`{getattr(value, 'name', str(value)).lower()}`"
    return f"{value:g}s" if isinstance(field.declared_rule, Seconds) else f"{value:.10g}"


def range_of(field: Field) -> str | None:
    """The range as the reference words it; None where the rule is one of its own."""
    rule = field.declared_rule
    if isinstance(rule, Whole):
        return f"{rule.low} to {rule.high}"
    if isinstance(rule, Seconds):
        return f"{rule.low * 1000:g}ms and more" if rule.low else "0s and more"
    if isinstance(rule, Number):
        bound = f"above {rule.low:g}" if rule.above else f"{rule.low:g} and more"
        return bound if rule.high > MAX_SECONDS else f"{rule.low:g} to {rule.high:g}"
    if field.type is bool:
        return "`true`, `false`"
    if get_origin(field.type) is Literal:
        return ", ".join(f"`{name}`" for name in get_args(field.type))
    if isinstance(field.type, type) and issubclass(field.type, enum.Enum):
        return ", ".join(f"`{name.lower()}`" for name in field.type.__members__)
    return None


FIELDS = [(section, kind, field) for section, kind in SECTIONS.items() for field in written_fields(kind).values()]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_has_its_row_and_no_other_has(section: str) -> None:
    assert rows(section).keys() == written_fields(SECTIONS[section]).keys()


@pytest.mark.parametrize(
    ("section", "kind", "field"), FIELDS, ids=[f"{kind.__name__}.{f.name}" for _, kind, f in FIELDS]
)
def test_the_default_is_the_one_in_the_code(section: str, kind: type, field: Field) -> None:
    name = "localities" if field.name == "locality_weights" else field.name
    assert rows(section)[name][1] == default_of(kind, field)


@pytest.mark.parametrize(
    ("section", "field"),
    [
        pytest.param(section, f, id=f"{kind.__name__}.{f.name}")
        for section, kind, f in FIELDS
        if range_of(f) is not None
    ],
)
def test_the_range_is_the_one_in_the_code(section: str, field: Field) -> None:
    assert rows(section)[field.name][0] == range_of(field)


def test_policies_without_settings_are_named() -> None:
    for kind in get_args(Policy):
        assert f"`{snake_case(kind.__name__)}`" in REFERENCE


def test_the_example_is_valid() -> None:
    example = REFERENCE.split("```yaml\n", 1)[1].split("```", 1)[0]
    assert [service.name for service in parse(example, "lb.yaml").services] == ["web"]
