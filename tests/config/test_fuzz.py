"""Whatever a file holds, the answer is a `Configuration` or a `ConfigError`; what lbcore can say, the file can say."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, get_args

import yaml
from hypothesis import given
from hypothesis import strategies as st

from lbcore.config import Configuration, decode, parse
from lbcore.errors import ConfigError
from lbcore.model import Endpoint, Health, Locality
from lbcore.policy import Jump, LeastRequest, Maglev, Policy, Random, Rendezvous, RingHash, RoundRobin
from lbcore.request_hash import HashMethod, RegexRewrite
from lbcore.routing import Listener, Route
from lbcore.schema import snake_case
from lbcore.settings import (
    CheckTls,
    CircuitBreakers,
    DropOverload,
    GrpcHealthCheck,
    HealthCheck,
    HttpHealthCheck,
    OutlierDetection,
    Payload,
    SlowStart,
    StatusRange,
    TcpHealthCheck,
    ZoneAware,
)
from lbcore.snapshot import ServiceSnapshot
from lbcore.source import Source
from lbcore.subset import Subsets, SubsetSelector
from tests.config.test_examples import FLEET

MISTAKE = re.compile(r"lb\.yaml:[1-9][0-9]*: \S")


def read(text: str | bytes) -> None:
    """Reads it, and if it is refused, then as promised."""
    try:
        decode(text, "lb.yaml") if isinstance(text, bytes) else parse(text, "lb.yaml")
        return
    except ConfigError as refused:
        mistakes = refused.mistakes
    assert mistakes
    assert all(MISTAKE.match(mistake) for mistake in mistakes)


@given(st.text())
def test_any_text(text: str) -> None:
    read(text)


@given(st.binary())
def test_any_bytes(content: bytes) -> None:
    read(content)


@given(st.text(alphabet="[]{}&*!|>'\"%@`#,?:-<~ \n\tabx01.\\", max_size=60))
def test_any_text_of_yaml_s_own_characters(text: str) -> None:
    read(text)


def all_fields() -> list[str]:
    checks = (HealthCheck, HttpHealthCheck, TcpHealthCheck, GrpcHealthCheck, CheckTls, StatusRange, Payload)
    kinds = (ServiceSnapshot, Endpoint, Locality, *checks, OutlierDetection, CircuitBreakers)
    kinds += (
        DropOverload,
        Listener,
        Route,
        RegexRewrite,
        SlowStart,
        Subsets,
        SubsetSelector,
        ZoneAware,
        *get_args(HashMethod),
        *get_args(Policy),
        *get_args(Source),
    )  # type: ignore[assignment]
    names = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    return sorted(
        {
            *names,
            "services",
            "listeners",
            "localities",
            "source",
            "web",
            "<<",
            *map(snake_of, get_args(Policy) + get_args(HashMethod) + get_args(Source)),
        }
    )


def snake_of(kind: type) -> str:
    return snake_case(kind.__name__)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["10.0.0.1:80", "[::1]:80", "eu/a", "5s", "random", "source_ip", "web", "draining", "/"]),
)
structures = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(all_fields()), inner, max_size=6),
    max_leaves=30,
)


@given(structures)
def test_any_structure(structure: Any) -> None:
    read(yaml.safe_dump(structure))


@given(structures, st.sampled_from(all_fields()))
def test_any_structure_as_a_field_of_a_service(structure: Any, field: str) -> None:
    read(yaml.safe_dump({"services": {"web": {field: structure}}, "listeners": [{field: structure}]}))


@given(st.data())
def test_a_valid_file_with_a_piece_changed(data: st.DataObject) -> None:
    text = FLEET
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = (
            text[:start]
            + data.draw(st.text(max_size=4) | st.sampled_from(["\n", "  ", "&a ", "*a", ": "]))
            + text[end:]
        )
    read(text)


@given(st.lists(st.integers(0, FLEET.count("\n")), unique=True), st.randoms(use_true_random=False))
def test_a_valid_file_with_lines_lost_and_shuffled(lost: list[int], random: Any) -> None:
    lines = [line for number, line in enumerate(FLEET.splitlines()) if number not in lost]
    read("\n".join(lines))
    random.shuffle(lines)
    read("\n".join(lines))


uint32 = st.integers(0, 2**32 - 1)
seconds = st.floats(0.001, 1e9)
names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20).filter(
    lambda name: name != "*" and not name.startswith("xdstp:") and not name.endswith("/")
)
printable = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=10)
slow_starts = st.builds(SlowStart, seconds, st.floats(0.1, 10), st.floats(0, 100))
sizes = st.integers(1, 8_388_608)
balance = st.none() | st.integers(100, 1000)
policies = st.one_of(
    st.builds(RoundRobin, slow_start=st.none() | slow_starts),
    st.builds(Random),
    st.builds(LeastRequest, choice_count=st.integers(2, 100), active_request_bias=st.floats(0, 10)),
    st.tuples(sizes, sizes).map(lambda two: RingHash(minimum_ring_size=min(two), maximum_ring_size=max(two))),
    st.builds(Maglev, table_size=st.sampled_from([2, 251, 65537]), hash_balance_factor=balance),
    st.builds(Rendezvous),
    st.builds(Jump),
)
structs = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | printable,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(printable, inner, max_size=3),
    max_leaves=5,
)
parts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/"), max_size=5)
localities = st.builds(Locality, parts, parts, parts)
places = st.one_of(
    st.builds("{}.{}.{}.{}:{}".format, *[st.integers(0, 255)] * 4, st.integers(1, 65535)),
    st.builds("[2001:db8::{:x}]:{}".format, st.integers(1, 65535), st.integers(1, 65535)),
    st.builds("unix:/run/{}.sock".format, st.integers(0, 999)),
)
endpoints = st.builds(
    Endpoint,
    places,
    weight=st.integers(1, 2**20),
    locality=localities,
    health=st.sampled_from(Health),
    hostname=printable,
    metadata=st.dictionaries(printable, structs, max_size=3),
)
status_ranges = st.builds(StatusRange, start=st.integers(100, 300), end=st.integers(301, 600))
payloads = st.builds(Payload.of, st.binary(min_size=1, max_size=9))
http_checks = st.builds(
    HttpHealthCheck,
    path=st.sampled_from(["/", "/healthz?x=%20"]),
    host=printable,
    method=st.sampled_from(["GET", "HEAD"]),
    expected_statuses=st.lists(status_ranges, max_size=2),
    receive=st.lists(payloads, max_size=2),
)
tcp_checks = st.builds(TcpHealthCheck, send=st.none() | payloads, receive=st.lists(payloads, max_size=2))
grpc_checks = st.builds(GrpcHealthCheck, service_name=printable, watch=st.booleans())
health_checks = st.one_of(
    st.builds(HealthCheck, http=http_checks, interval=seconds, unhealthy_threshold=st.integers(1, 9)),
    st.builds(HealthCheck, tcp=tcp_checks, unhealthy_interval=st.none() | seconds),
    st.builds(HealthCheck, grpc=grpc_checks, tls=st.builds(CheckTls, ca_file=printable), checked_by=st.just("service")),
)
outliers = st.builds(OutlierDetection, interval=seconds, consecutive_5xx=uint32, always_eject_one_host=st.booleans())


@st.composite
def services(draw: st.DrawFn, name: str) -> ServiceSnapshot:
    hosts = draw(st.lists(endpoints, max_size=4, unique_by=lambda endpoint: endpoint.address))
    used = sorted({host.locality for host in hosts})
    weights = draw(st.dictionaries(st.sampled_from(used), st.integers(1, 2**20))) if used else {}
    return ServiceSnapshot(
        name=name,
        endpoints=tuple(hosts),
        policy=draw(policies),
        locality_weights=weights,
        overprovisioning_factor=draw(st.integers(1, 1000)),
        panic_threshold=draw(st.floats(0, 100)),
        health_check=draw(st.none() | health_checks),
        outlier_detection=draw(st.none() | outliers),
        circuit_breakers=draw(st.none() | st.builds(CircuitBreakers, max_requests=uint32)),
        drop_overload=draw(
            st.none() | st.builds(DropOverload, category=st.just("throttle"), percent=st.floats(0, 100))
        ),
    )


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    found = draw(st.lists(names, max_size=3, unique=True))
    return Configuration(services=tuple(draw(services(name)) for name in found))


def written(value: Any) -> Any:
    """A value as the file writes it, every field of it."""
    if isinstance(value, ServiceSnapshot):
        fields = {each.name: written(getattr(value, each.name)) for each in dataclasses.fields(value)}
        weights = fields.pop("locality_weights")
        del fields["name"]
        return {**fields, "localities": {place: {"weight": weight} for place, weight in weights.items()}}
    if isinstance(value, get_args(Policy)):
        return {snake_of(type(value)): fields_of(value)}
    if isinstance(value, Locality):
        return str(value)
    if isinstance(value, Enum):
        return value.name.lower()
    if dataclasses.is_dataclass(value):
        return fields_of(value)
    if isinstance(value, Mapping):
        return {written(key): written(each) for key, each in value.items()}
    return [written(each) for each in value] if isinstance(value, tuple | list) else value


def fields_of(value: Any) -> dict[str, Any]:
    return {each.name: written(getattr(value, each.name)) for each in dataclasses.fields(value)}


@given(configurations())
def test_what_is_written_is_read_back(configuration: Configuration) -> None:
    # JSON is YAML 1.2, and quotes all text; PyYAML writes 1.1, where 1e3 is text.
    services = {service.name: written(service) for service in configuration.services}
    again = parse(json.dumps({"services": services}, ensure_ascii=False), "lb.yaml")
    assert again == configuration
    assert [each.version for each in again.services] == [each.version for each in configuration.services]
