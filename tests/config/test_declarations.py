"""The file follows the declarations of the values: what is added to them can be configured without a change here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from lbcore.config import parse
from lbcore.config.decoding import MISSING, Decoder
from lbcore.config.document import compose
from lbcore.errors import ConfigError
from lbcore.policy import RoundRobin
from lbcore.schema import Checked, fields_of
from lbcore.snapshot import ServiceSnapshot
from lbcore.validation import Interval, Whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(Checked):
    every: Interval = 1.0
    kind: Literal["tcp", "grpc"] = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedCoin(Checked):
    sides: Annotated[int, Whole(2, 6)]
    probes: tuple[Probe, ...] = ()
    probe: Probe | None = None


def decoded(text: str) -> tuple[object, list[tuple[int, str]]]:
    decoder = Decoder()
    node = compose(text)
    assert node is not None
    return decoder.value(RoundRobin | WeightedCoin, node, ("policy",)), decoder.mistakes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("round_robin", RoundRobin()),
        ("weighted_coin: {sides: 3}", WeightedCoin(sides=3)),
        ("weighted_coin: {sides: 3, probe: {every: 250ms}}", WeightedCoin(sides=3, probe=Probe(every=0.25))),
        ("weighted_coin: {sides: 3, probes: [{kind: grpc}]}", WeightedCoin(sides=3, probes=(Probe(kind="grpc"),))),
    ],
)
def test_a_new_policy_can_be_configured(text: str, value: object) -> None:
    assert decoded(text) == (value, [])


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("weighted_coin", "policy: sides is missing"),
        ("weighted_coin: {sides: 7}", "policy.weighted_coin.sides: sides 7: expected a whole number, 2 to 6"),
        (
            "weighted_coin: {sides: 2, probes: [{}, {kind: udp}]}",
            "policy.weighted_coin.probes[1].kind: kind 'udp': expected one of tcp, grpc",
        ),
    ],
)
def test_a_mistake_in_a_new_policy_is_said_as_any_other(text: str, mistake: str) -> None:
    assert decoded(text) == (MISSING, [(1, mistake)])


@pytest.mark.parametrize(
    "field", [name for name in fields_of(ServiceSnapshot) if name not in ("name", "locality_weights")]
)
def test_every_field_of_a_service_is_known_to_the_file(field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"services: {{web: {{{field}: [.nan]}}}}", "lb.yaml")
    assert "unknown field" not in str(caught.value)
