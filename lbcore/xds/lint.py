"""The last look at a finished message before it may leave: would Envoy refuse it?

Envoy refuses what breaks the constraints that its API files declare (protoc-gen-validate), also inside of every `Any`;
the declarations come with the generated messages, so this reads them there and needs no list of its own. What gRPC
refuses beyond that is a matter of how resources are made, and stands where each is made. Source: validate.proto.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

from google.protobuf import any_pb2, duration_pb2, symbol_database
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from validate import validate_pb2

from lbcore.errors import LbError
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.wire import NO_CLUSTERS, Resource

__all__ = ["Unfit", "faults", "linted"]

Check = Callable[[Any], str]  # why a value is refused; empty if it is not

_KNOWN = {1: r":?[0-9a-zA-Z!#$%&'*+\-.^_|~`]+", 2: r"[^\x00-\x08\x0A-\x1F\x7F]*"}  # HTTP header names and values
_LOOSE = dict.fromkeys(_KNOWN, r"[^\x00\x0A\x0D]*")  # where the rule is not strict


class Unfit(LbError, ValueError):
    """A resource that a client would refuse; the message names every field and why."""


def linted(
    resource_type: ResourceType,
    name: str,
    message: Message,
    clusters: frozenset[str] = NO_CLUSTERS,
    ttl: float | None = None,
) -> Resource:
    """The message as a `Resource`. Raises `Unfit` where Envoy would refuse it."""
    if found := list(faults(message)):
        raise Unfit(f"{resource_type.name.lower()} {name!r} would be refused: {'; '.join(found)}")
    return Resource(resource_type, name, message, clusters, ttl)


def faults(message: Message, path: str = "") -> Iterator[str]:
    """Every field of a message that breaks its constraints, and why."""
    plan = _plan(message.DESCRIPTOR)
    present = message.ListFields()
    if plan.expected:
        names = {field.name for field, _ in present}
        yield from (f"{_join(path, name)}: {why}" for name, why in plan.expected.items() if name not in names)
    for group, members in plan.choices:
        if message.WhichOneof(group) is None:
            yield f"{path or message.DESCRIPTOR.name}: expected one of {', '.join(members)}"
    for field, value in present:
        name = field.name
        if (test := plan.tests.get(name)) is not None and (why := test(value)):
            yield f"{_join(path, name)} {value!r:.60}: {why}"
        if (test := plan.item_tests.get(name)) is not None:
            for index, item in enumerate(value):
                if why := test(item):
                    yield f"{_join(path, name)}[{index}] {item!r:.60}: {why}"
        if (inner := plan.inner.get(name)) is not None:
            yield from inner(value, _join(path, name))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _each_in_map(value: Any, path: str) -> Iterator[str]:
    for key, each in value.items():
        yield from _any_or_message(each, f"{path}[{key!r}]")


def _each_in_list(value: Any, path: str) -> Iterator[str]:
    for index, each in enumerate(value):
        yield from _any_or_message(each, f"{path}[{index}]")


def _any_or_message(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, any_pb2.Any):
        return (_join(path, fault) for fault in _packed_faults(value.type_url, value.value))
    return faults(value, path)


@lru_cache(maxsize=4096)
def _packed_faults(type_url: str, content: bytes) -> tuple[str, ...]:
    """Of the message in an `Any`: most are the same for many services."""
    try:
        inner = symbol_database.Default().GetSymbol(type_url.rpartition("/")[2])()
        inner.ParseFromString(content)
    except (KeyError, DecodeError):
        return ()  # an extension that this program does not know
    return tuple(faults(inner))


class _Plan(NamedTuple):
    """What is to be looked at in messages of one type: by field, tests of the value and of each item, and how to look
    into it; what has to be there, and why; groups of which one field has to be there."""

    tests: dict[str, Check]
    item_tests: dict[str, Check]
    inner: dict[str, Callable[[Any, str], Iterator[str]]]
    expected: dict[str, str]
    choices: list[tuple[str, list[str]]]


@cache
def _plan(descriptor: Descriptor) -> _Plan:
    plan = _Plan({}, {}, {}, {}, [])
    for field in descriptor.fields:
        _plan_rules(plan, field)
        if field.message_type is None or not _may_hold_constraints(field.message_type):
            continue
        if not field.message_type.GetOptions().map_entry:
            plan.inner[field.name] = _each_in_list if field.is_repeated else _any_or_message
        elif field.message_type.fields_by_name["value"].message_type is not None:
            plan.inner[field.name] = _each_in_map
    for group in descriptor.oneofs:
        if group.GetOptions().Extensions[validate_pb2.required]:
            plan.choices.append((group.name, [field.name for field in group.fields]))
    return plan


def _may_hold_constraints(descriptor: Descriptor) -> bool:
    """Not what protobuf itself defines: numbers in wrappers, durations, JSON."""
    return descriptor.file.package != "google.protobuf" or descriptor is any_pb2.Any.DESCRIPTOR


def _plan_rules(plan: _Plan, field: FieldDescriptor) -> None:
    if not field.GetOptions().HasExtension(validate_pb2.rules):
        return
    declared = field.GetOptions().Extensions[validate_pb2.rules]
    kind = declared.WhichOneof("type")
    required = declared.message.required
    test: Check | None = None
    if kind == "repeated":
        test = _count_test(declared.repeated.min_items, declared.repeated.max_items)
        items = declared.repeated.items
        if (of_items := items.WhichOneof("type")) and (item_test := _value_test(items, of_items)):
            plan.item_tests[field.name] = item_test
    elif kind == "map":
        test = _count_test(declared.map.min_pairs, declared.map.max_pairs)
    elif kind:
        required = required or (kind in ("duration", "timestamp", "any") and getattr(declared, kind).required)
        test = _value_test(declared, kind)
    if test is not None:
        plan.tests[field.name] = test
    if field.containing_oneof is not None:
        return  # it counts only where it is chosen
    if required:
        plan.expected[field.name] = "expected a value"
    elif test is not None and (field.message_type is None or field.is_repeated):
        absent: Any = () if field.is_repeated else field.default_value
        if why := test(absent):
            plan.expected[field.name] = why


def _count_test(least: int, most: int) -> Check | None:
    def test(value: Any) -> str:
        if len(value) < least:
            return f"expected at least {least}"
        return f"expected at most {most}" if most and len(value) > most else ""

    return test if least or most else None


def _value_test(declared: Any, kind: str) -> Check | None:
    rules = getattr(declared, kind)
    if kind == "string":
        return _string_test(rules)
    if kind == "bytes":
        return _count_test(rules.min_len, rules.max_len)
    if kind == "enum":
        return _member_test(rules)
    if kind == "duration":
        bounds = _bounds(rules, lambda each: each.ToNanoseconds() / 1e9)
        return lambda value: bounds(value.ToNanoseconds() / 1e9) if isinstance(value, duration_pb2.Duration) else ""
    if kind in ("any", "timestamp", "bool", "message"):
        return None
    bounds = _bounds(rules, lambda each: each)
    members = _member_test(rules)
    return lambda value: bounds(number := getattr(value, "value", value)) or members(number)


_BOUNDS = (
    ("gt", operator.gt, "more than"),
    ("gte", operator.ge, "at least"),
    ("lt", operator.lt, "less than"),
    ("lte", operator.le, "at most"),
)


def _bounds(rules: Any, number: Callable[[Any], Any]) -> Check:
    tests: list[tuple[Any, Callable[[Any, Any], Any], str]] = [
        (number(getattr(rules, name)), compare, words) for name, compare, words in _BOUNDS if rules.HasField(name)
    ]

    def test(value: Any) -> str:
        for limit, fits, words in tests:
            if not fits(value, limit):
                return f"expected {words} {limit:g}"
        return ""

    return test


def _member_test(rules: Any) -> Check:
    allowed, forbidden = tuple(getattr(rules, "in")), tuple(rules.not_in)

    def test(value: Any) -> str:
        if allowed and value not in allowed:
            return f"expected one of {', '.join(map(str, allowed))}"
        return "expected another value" if value in forbidden else ""

    return test


def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern) if pattern else None
    except re.error:
        return None  # RE2 knows what Python does not


def _string_test(rules: Any) -> Check:
    known = _KNOWN if rules.strict else _LOOSE
    pattern = known.get(rules.well_known_regex) or rules.pattern
    expression = _compiled(pattern)
    members = _member_test(rules)

    def test(wrapped: Any) -> str:
        value: str = getattr(wrapped, "value", wrapped)
        size = len(value.encode())
        if rules.ignore_empty and not value:
            return ""
        if len(value) < rules.min_len or size < rules.min_bytes:
            return f"expected at least {max(rules.min_len, rules.min_bytes)} characters"
        if (rules.HasField("max_len") and len(value) > rules.max_len) or (
            rules.HasField("max_bytes") and size > rules.max_bytes
        ):
            return f"expected at most {rules.max_len or rules.max_bytes} characters"
        if not value.startswith(rules.prefix):
            return f"expected it to start with {rules.prefix!r}"
        if expression is not None and not (
            expression.fullmatch(value) if rules.well_known_regex else expression.search(value)
        ):
            return "expected a header's name or value" if rules.well_known_regex else f"expected {pattern}"
        return members(value)

    return test
