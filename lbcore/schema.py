"""What a value type declares about its fields, read from its type hints: the one place where a limit stands.

A field is `name: Annotated[TYPE, RULE]`, or a plain type that says enough by itself (`bool`, `str`, `Literal`, an enum,
another value type, a union of them, a tuple of one). `Checked` applies the rules when a value is made and reports all
that is wrong at once; the configuration file's decoder reads the same declarations, so neither repeats the other.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from lbcore.errors import InvalidSetting, Mistake
from lbcore.validation import flag, one_of, refusal, text

__all__ = [
    "Checked",
    "Field",
    "Rule",
    "attempt",
    "fields_of",
    "item_type",
    "keep_fields",
    "mistakes_in",
    "snake_case",
    "with_fields",
]

Rule: TypeAlias = Callable[[Any, str], Any]  # (value, field name) -> the value to keep; raises InvalidSetting
C = TypeVar("C", bound="Checked")

_SET_FIELD = object.__setattr__
_NO_DEFAULT = object()


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field.

    Fields:
        type: the hint without `Annotated` and without `None`.
        rule: checks a value; None passes where the field is optional.
        declared_rule: the rule in `Annotated`, if there is one.
        required: whether the value cannot be made without it.
        optional: whether None is allowed.
        positional: whether the constructor also takes it without its name.
        default: what the constructor takes where it is left out, if that is always the same.
    """

    name: str
    type: Any
    rule: Rule
    declared_rule: Rule | None
    required: bool
    optional: bool
    positional: bool
    default: object


class Checked:
    """Base of dataclasses whose fields are checked, and normalised, when a value is made.

    The fields stand in the order of the constructor.

    Raises `InvalidSetting` with every mistake. Whole numbers in fields of type float become floats, so that equal
    settings are equal in content too.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        keep_fields(self, *[getattr(self, name) for name, *_ in _rules(_type_of(self))])

    def contradictions(self) -> Iterable[Mistake]:
        """What is wrong between fields that are each right; asked only when they are."""
        return ()


def keep_fields(value: Checked, *given: object) -> None:
    """Sets a frozen value's fields, in order, to what their rules make of the given ones, or raises all mistakes.

    Most fields of most values are as by default, and what a rule makes of the default is known.
    """
    rules = _rules(_type_of(value))
    try:
        for (name, keep, rule, default, kept), each in zip(rules, given, strict=True):
            keep(value, kept if each is default else rule(each, name))
    except InvalidSetting:
        mistakes: list[Mistake] = []
        for (name, _, rule, *_), each in zip(rules, given, strict=True):
            attempt(rule, each, name, mistakes)
        raise InvalidSetting(*mistakes) from None
    if contradictions := tuple(value.contradictions()):
        raise InvalidSetting(*contradictions)


def with_fields(value: C, **given: object) -> C:
    """A copy of a checked value with other fields; only those are checked, and what lies between fields. Raises
    `InvalidSetting`.

    `dataclasses.replace` checks the others again, which takes most of the time where one field of many changes often.
    """
    copy = object.__new__(type(value))
    mistakes: list[Mistake] = []
    for name, _, rule, *_ in _rules(_type_of(value)):
        kept = attempt(rule, given.pop(name), name, mistakes) if name in given else getattr(value, name)
        _SET_FIELD(copy, name, kept)
    if given:
        raise TypeError(f"{type(value).__name__} has no field {min(given)!r}")
    if mistakes or (mistakes := list(copy.contradictions())):
        raise InvalidSetting(*mistakes)
    return copy


def mistakes_in(value_type: type, given: Mapping[str, object]) -> list[Mistake]:
    """What is wrong with some fields of a value that cannot be made, because others are missing."""
    mistakes: list[Mistake] = []
    for name, _, rule, *_ in _rules(value_type):
        if name in given:
            attempt(rule, given[name], name, mistakes)
    return mistakes


def attempt(rule: Rule, value: object, name: str, mistakes: list[Mistake]) -> Any:
    """What a rule makes of a value; the value itself, and mistakes added to the list, where it refuses."""
    try:
        return rule(value, name)
    except InvalidSetting as wrong:
        mistakes += wrong.mistakes
        return value


def _type_of(value: Checked) -> type:
    return type(value)


@cache
def _rules(value_type: type) -> tuple[tuple[str, Callable[[object, object], None], Rule, object, object], ...]:
    """Of each field its name, what sets it, its rule, its default, and what the rule makes of that."""
    return tuple(
        (field.name, _setter(value_type, field.name), field.rule, *_kept_default(field))
        for field in fields_of(value_type).values()
    )


def _setter(value_type: type, name: str) -> Callable[[object, object], None]:
    """What sets a field of a frozen value; that of a slot itself takes half as long as `object.__setattr__`."""
    slot = getattr(value_type, name, None)
    if isinstance(slot, types.MemberDescriptorType):
        return slot.__set__
    return lambda value, kept: _SET_FIELD(value, name, kept)


def _kept_default(field: Field) -> tuple[object, object]:
    try:
        return field.default, field.rule(field.default, field.name)
    except InvalidSetting:  # it has none, or one that is made anew for each value
        return _NO_DEFAULT, None


@cache
def fields_of(value_type: type) -> Mapping[str, Field]:
    """The fields of a dataclass by name, in the order of its constructor."""
    hints = get_type_hints(value_type, include_extras=True)
    parameters = inspect.signature(value_type).parameters.values()
    return types.MappingProxyType({each.name: _field(each, hints[each.name]) for each in parameters})


def _field(parameter: inspect.Parameter, hint: Any) -> Field:
    choices = _choices(hint)
    present = [choice for choice in choices if choice is not types.NoneType]
    optional = len(present) < len(choices)
    declared = next((extra for choice in present for extra in _extras(choice) if callable(extra)), None)
    bare = [get_args(choice)[0] if get_origin(choice) is Annotated else choice for choice in present]
    kind = bare[0] if len(bare) == 1 else Union[tuple(bare)]  # noqa: UP007 - made at run time
    rule = declared or rule_for(kind)
    return Field(
        name=parameter.name,
        type=kind,
        rule=partial(_or_none, rule) if optional else rule,
        declared_rule=declared,
        required=parameter.default is inspect.Parameter.empty,
        optional=optional,
        positional=parameter.kind is not inspect.Parameter.KEYWORD_ONLY,
        default=parameter.default,
    )


def rule_for(kind: Any) -> Rule:
    """The rule of a type that says enough by itself. Raises `TypeError` at one that does not."""
    if kind is bool:
        return flag
    if kind is str:
        return text
    if get_origin(kind) is Literal:
        return partial(_one_of, get_args(kind))
    if (item := item_type(kind)) is not None:
        return partial(_all_instances, item)
    if all(
        isinstance(choice, type) and (_is_value(choice) or issubclass(choice, enum.Enum)) for choice in _choices(kind)
    ):
        return partial(_instance, _choices(kind))
    raise TypeError(f"{kind}: declare its rule, as Annotated[..., rule]")


def item_type(kind: Any) -> Any:
    """What a type that stands for a sequence holds, None where it is no such type. The values are kept as tuples.

    A field is a `Sequence` where the constructor is to take lists as well.
    """
    arguments = get_args(kind)
    if get_origin(kind) is Sequence or (get_origin(kind) is tuple and arguments[1:] == (...,)):
        return arguments[0]
    return None


def _is_value(kind: type) -> bool:
    return dataclasses.is_dataclass(kind)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _extras(hint: Any) -> tuple[Any, ...]:
    return typing.cast("tuple[Any, ...]", hint.__metadata__) if get_origin(hint) is Annotated else ()


def _or_none(rule: Rule, value: object, field: str) -> Any:
    return None if value is None else rule(value, field)


def _one_of(allowed: tuple[str, ...], value: object, field: str) -> str:
    return one_of(value, field, allowed)


def _instance(allowed: tuple[type, ...], value: object, field: str) -> object:
    if not isinstance(value, allowed):
        raise refusal(field, value, f"expected {' or '.join(map(_in_words, allowed))}")
    return value


def _in_words(kind: type) -> str:
    if issubclass(kind, enum.Enum):
        return f"a {kind.__name__}, one of {', '.join(kind.__members__)}"
    return f"a {kind.__name__}"


def _all_instances(kind: type, value: object, field: str) -> tuple[object, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise refusal(field, value, f"expected a sequence of {kind.__name__}")
    items = tuple(value)
    if set(map(type, items)) <= {kind}:  # as mostly, and there may be thousands
        return items
    wrong = [
        Mistake((field, index), str(refusal(f"{field}[{index}]", item, f"expected a {kind.__name__}")))
        for index, item in enumerate(items)
        if not isinstance(item, kind)
    ]
    if wrong:
        raise InvalidSetting(*wrong)
    return items


def snake_case(name: str) -> str:
    """A class's name in files and tables.

    >>> snake_case("ClientSideWeightedRoundRobin"), snake_case("RingHash")
    ('client_side_weighted_round_robin', 'ring_hash')
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
