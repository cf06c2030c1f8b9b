"""Each rule of a correct xDS server has a test that bears its id: `test_s19_...` for rule S19, anywhere in `tests`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
RULES = {
    **{f"A{number}": "stream and session" for number in range(1, 10)},
    **{f"S{number}": "state of the world" for number in range(1, 26)},
    **{f"D{number}": "delta" for number in range(1, 21)},
    **{f"T{number}": "TTL" for number in range(1, 5)},
    **{f"V{number}": "validity" for number in range(1, 9)},
    **{f"R{number}": "trust" for number in range(1, 10)},
}
# Those of state of the world, delta and TTL that are of several types on one stream: the aggregated one.
ACROSS_TYPES = {"S19", "S20", "S21", "D16", "D17"}
_TEST = re.compile(r"def (test_[a-z0-9_]+)")
_IDS = re.compile(r"_([asdtvr]\d{1,2})(?=_)")


def ids_that_tests_bear() -> set[str]:
    """The ids that tests bear; `test_v1_to_v6_hold` bears all from V1 to V6."""
    found: set[str] = set()
    for path in TESTS.rglob("test_*.py"):
        for name in _TEST.findall(path.read_text()):
            ids = [each.upper() for each in _IDS.findall(name)]
            found.update(ids)
            if "_to_" in name and len(ids) == 2:
                first, last = (int(each[1:]) for each in ids)
                found.update(f"{ids[0][0]}{number}" for number in range(first, last + 1))
    return found


def test_there_are_75_rules() -> None:
    assert len(RULES) == 75


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_test_that_bears_its_id(rule: str) -> None:
    assert rule in ids_that_tests_bear(), f"{rule} ({RULES[rule]}): no test bears its id"


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule[0] in "SDT" and rule not in ACROSS_TYPES])
def test_every_rule_of_one_type_is_tested_on_both_services(rule: str) -> None:
    """Aggregated and per type: a test that takes the fixture `only` runs on both."""
    header = re.compile(rf"def test_(?:\w+_)?{rule.lower()}_\w+\([^)]*\bonly: ")
    assert any(header.search(path.read_text()) for path in TESTS.rglob("test_*.py")), f"{rule}: not on both"
