"""What `Checked` makes of declared fields: every mistake at once, normalised values, contradictions between fields."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from lbcore.errors import InvalidSetting, Mistake
from lbcore.model import Endpoint, Health
from lbcore.policy import LeastRequest, Maglev, RingHash
from lbcore.schema import Checked, fields_of, with_fields
from lbcore.settings import HealthCheck, HttpHealthCheck, OutlierDetection, SlowStart
from lbcore.validation import Number, Whole


@dataclass(frozen=True, kw_only=True)
class Part(Checked):
    size: Annotated[int, Whole(1, 9)] = 1


@dataclass(frozen=True, kw_only=True)
class Setting(Checked):
    ratio: Annotated[float, Number(0.0)]
    mode: Literal["slow", "fast"] = "slow"
    on: bool = False
    title: str = ""
    health: Health = Health.UNKNOWN
    part: Part | None = None
    parts: tuple[Part, ...] = ()

    def contradictions(self) -> Iterator[Mistake]:
        if self.on and not self.title:
            yield Mistake(("title",), "title '': expected one when on")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("ratio", True, "ratio True: expected a number"),
        ("ratio", float("nan"), "ratio nan: expected a number"),
        pytest.param("ratio", 10**400, "ratio 1000.*expected a number", id="beyond floats"),
        pytest.param("ratio", 10**5000, "ratio of 16610 bits: expected a number", id="beyond decimal"),
        ("mode", "medium", "mode 'medium': expected one of slow, fast"),
        ("mode", ["slow"], r"mode \['slow'\]: expected one of slow, fast"),
        ("on", 1, "on 1: expected true or false"),
        ("title", None, "title None: expected text"),
        ("health", 1, "health 1: expected a Health, one of UNKNOWN, HEALTHY"),
        ("part", {"size": 1}, "part {'size': 1}: expected a Part"),
        ("parts", "ab", "parts 'ab': expected a sequence of Part"),
        ("parts", [Part(), 3], r"parts\[1\].* 3: expected a Part"),
    ],
)
def test_a_field_of_each_kind_refuses_what_it_cannot_hold(field: str, value: object, expected: str) -> None:
    given: dict[str, Any] = {"ratio": 1.0, field: value}
    with pytest.raises(InvalidSetting, match=expected):
        Setting(**given)


def test_a_whole_number_in_a_field_of_floats_becomes_a_float() -> None:
    assert type(Setting(ratio=3).ratio) is float


def test_a_list_in_a_field_of_tuples_becomes_a_tuple() -> None:
    assert Setting(ratio=1, parts=[Part()]).parts == (Part(),)  # type: ignore[arg-type]


def test_none_passes_only_where_it_is_declared() -> None:
    assert Setting(ratio=1, part=None).part is None


def test_contradictions_are_asked_for_once_every_field_is_right() -> None:
    with pytest.raises(InvalidSetting) as one:
        Setting(ratio=1, on=True)
    with pytest.raises(InvalidSetting) as other:
        Setting(ratio=-1, on=True)
    assert [one.value.mistakes[0].path, other.value.mistakes[0].path] == [("title",), ("ratio",)]


def test_every_field_that_is_wrong_is_named() -> None:
    with pytest.raises(InvalidSetting) as caught:
        Setting(ratio=-1, mode="medium", on=3)  # type: ignore[arg-type]
    assert [mistake.path for mistake in caught.value.mistakes] == [("ratio",), ("mode",), ("on",)]


def test_a_number_without_a_rule_is_an_error_of_the_declaration() -> None:
    @dataclass(frozen=True)
    class Unlimited(Checked):
        count: int = 0

    with pytest.raises(TypeError, match="declare its rule"):
        Unlimited()


def test_required_fields_are_known_from_the_constructor() -> None:
    assert [name for name, field in fields_of(Endpoint).items() if field.required] == ["address"]


def test_a_long_value_is_shown_shortened() -> None:
    with pytest.raises(InvalidSetting) as caught:
        Endpoint("x" * 100_000)
    assert len(str(caught.value)) < 300


def test_an_invalid_setting_survives_pickling() -> None:
    wrong = InvalidSetting(Mistake(("endpoints", 2, "weight"), "weight 0: expected more"))
    again = pickle.loads(pickle.dumps(wrong))
    assert (str(again), again.mistakes) == ("endpoints[2].weight: weight 0: expected more", wrong.mistakes)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: RingHash(minimum_ring_size=10, maximum_ring_size=9), "minimum_ring_size 10: expected at most"),
        (lambda: RingHash(minimum_ring_size=0), "minimum_ring_size 0: expected a whole number, 1 to 8388608"),
        (lambda: RingHash(hash_balance_factor=99), "hash_balance_factor 99: expected a whole number, 100 to"),
        (lambda: Maglev(table_size=65536), "table_size 65536: expected a prime number"),
        (lambda: Maglev(table_size=5_000_077), "table_size 5000077: expected a whole number, 2 to 5000011"),
        (lambda: LeastRequest(choice_count=1), "choice_count 1: expected a whole number, 2 to 100"),
        (lambda: LeastRequest(slow_start=5), "slow_start 5: expected a SlowStart"),  # type: ignore[arg-type]
        (lambda: SlowStart(0), "slow_start_window 0: expected a number, 0.001 or more"),
        (lambda: OutlierDetection(max_ejection_percent=101), "max_ejection_percent 101: expected a whole number"),
        (lambda: OutlierDetection(interval=1e-9), "interval 1e-09: expected a number, 0.001 or more"),
        (lambda: HealthCheck(http=HttpHealthCheck(path="health")), "path 'health': expected it to start with /"),
        (lambda: HealthCheck(http=HttpHealthCheck(path="/a\r\nb")), "path .*: expected printable ASCII"),
    ],
)
def test_the_limits_of_policies_and_settings_hold(make: Any, expected: str) -> None:
    with pytest.raises(InvalidSetting, match=expected):
        make()


def test_a_copy_with_other_fields_is_checked_as_a_new_value_is() -> None:
    before = Setting(ratio=1, title="a", parts=(Part(size=2),))
    after = with_fields(before, on=True, ratio=3)
    assert (after, before.on) == (Setting(ratio=3.0, on=True, title="a", parts=(Part(size=2),)), False)
    assert isinstance(after.ratio, float)
    with pytest.raises(InvalidSetting, match=r"title '': expected one when on"):
        with_fields(after, title="")
    with pytest.raises(InvalidSetting) as caught:
        with_fields(before, ratio=-1, mode="middle")
    assert [each.path for each in caught.value.mistakes] == [("ratio",), ("mode",)]
    with pytest.raises(TypeError, match="Setting has no field 'tilte'"):
        with_fields(before, tilte="")
