"""Nodes of a document to lbcore's own values, by the types that those values declare for their fields.

Nothing here knows a single policy or setting: a field is read as its type hint says (`lbcore.schema`) and judged by the
rule that the value itself applies, so a field that is added there can be configured at once. Every mistake is collected
with the line it stands in; a value that has one is left out, and what can still be checked without it is.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
import types
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

from lbcore.config import document
from lbcore.config.document import Node, Scalar
from lbcore.errors import InvalidSetting, Mistake, path_text
from lbcore.model import Endpoint, Locality
from lbcore.schema import Field, fields_of, item_type, mistakes_in, snake_case
from lbcore.validation import Seconds, refusal

__all__ = ["MISSING", "Decoder", "Path"]

Path = tuple[str | int, ...]
MISSING = object()  # in place of a value that has a mistake

_SAME: Mapping[str, str] = types.MappingProxyType({})
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(ms|s|m|h)\Z")
_UNITS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}


class Decoder:
    """Decodes the parts of one file and collects the mistakes in them.

    Every method takes a node, and the path to it from the root of the file.
    """

    def __init__(self) -> None:
        self.mistakes: list[tuple[int, str]] = []  # line, and `path: what`
        # Of a list with items left out: where those that remain stand in the file.
        self._positions: dict[Path, list[int]] = {}

    def wrong(self, path: Path, what: str, line: int) -> None:
        """Notes a mistake."""
        self.mistakes.append((line, f"{path_text(path)}: {what}" if path else what))

    def judge(self, found: Iterable[Mistake], node: Node, path: Path, renamed: Mapping[str, str] = _SAME) -> None:
        """Notes what is wrong within a value that was read from a node; `renamed` maps fields to the file's names."""
        for within, what, see in found:
            place = self._in_file(within, path, renamed)
            other = f" (see line {line_of(node, self._in_file(see, path, renamed))})" if see else ""
            self.wrong((*path, *place), what + other, line_of(node, place))

    def entries(self, node: Node, path: Path) -> dict[str, Node]:
        """The fields of a mapping, in the order of the file, those merged by `<<` included."""
        if not isinstance(node, document.Mapping):
            self.wrong(path, f"expected a mapping, found {in_words(node)}", node.line)
            return {}
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for key, value in node.pairs:
            if not isinstance(key, Scalar):
                self.wrong(path, f"key {in_words(key)}: expected text", key.line)
            elif is_merge(key):
                for source in value.items if isinstance(value, document.Sequence) else [value]:
                    merged = {**self.entries(source, (*path, "<<")), **merged}
            elif key.text in own:
                self.wrong((*path, key.text), f"given twice, first in line {lines[key.text]}", key.line)
            else:
                own[key.text] = value
                lines[key.text] = key.line
        return {**merged, **own} if merged else own

    def items(self, kind: Any, node: Node, path: Path) -> tuple[Any, ...] | Any:
        """The items of a sequence that have no mistake."""
        if not isinstance(node, document.Sequence):
            self.wrong(path, f"expected a list, found {in_words(node)}", node.line)
            return MISSING
        values: list[Any] = []
        positions: list[int] = []
        for index, item in enumerate(node.items):
            value = self.value(kind, item, (*path, index))
            if value is not MISSING:
                values.append(value)
                positions.append(index)
        if len(positions) < len(node.items):
            self._positions[path] = positions
        return tuple(values)

    def value(self, kind: Any, node: Node, path: Path) -> Any:
        """A value of a type that a field declares, or `MISSING`."""
        return _reading(kind)(self, node, path)

    def make(self, kind: type, node: Node, path: Path) -> Any:
        """A dataclass from a mapping of its fields."""
        before = len(self.mistakes)
        given = self.fields(fields_of(kind), node, path)
        if len(self.mistakes) == before:
            return self.construct(kind, given, node, path)
        self.judge(mistakes_in(kind, given), node, path)
        return MISSING

    def fields(self, declared: Mapping[str, Field], node: Node, path: Path) -> dict[str, Any]:
        """The values of declared fields in a mapping, those with a mistake left out."""
        entries = self.entries(node, path)
        given: dict[str, Any] = {}
        for name, part in entries.items():
            field = declared.get(name)
            if field is None:
                self.wrong((*path, name), f"unknown field{meant(name, declared)}", part.line)
            elif (value := self._field(field, part, (*path, name))) is not MISSING:
                given[name] = value
        if isinstance(node, document.Mapping):
            for name, field in declared.items():
                if field.required and name not in entries:
                    self.wrong(path, f"{name} is missing", node.line)
        return given

    def construct(
        self, kind: Any, given: Mapping[str, Any], node: Node, path: Path, renamed: Mapping[str, str] = _SAME
    ) -> Any:
        """A value from its fields, or `MISSING`, with its mistakes noted."""
        try:
            return kind(**given)
        except InvalidSetting as invalid:
            self.judge(invalid.mistakes, node, path, renamed)
            return MISSING

    def _field(self, field: Field, node: Node, path: Path) -> Any:
        if field.optional and node.is_null:
            return None
        if isinstance(field.declared_rule, Seconds) and isinstance(node, Scalar):
            return self._seconds(node, path)
        return self.value(field.type, node, path)

    def _dataclass(self, kind: type, node: Node, path: Path) -> Any:
        """From its fields; two have a short form in text, of which a locality's is read by the value that holds it."""
        if not isinstance(node, Scalar):
            return self.make(kind, node, path)
        if kind is Endpoint and not node.is_null:
            return self.construct(Endpoint, {"address": node.text}, node, path)
        if kind is Locality and not node.is_null:
            return node.text
        self.wrong(path, f"expected a mapping, found {in_words(node)}", node.line)
        return MISSING

    def _variant(self, kinds: tuple[type, ...], node: Node, path: Path) -> Any:
        """One of several types: its name alone, or a mapping of its name to its fields, or to the main one of them."""
        by_name = {snake_case(kind.__name__): kind for kind in kinds}
        if isinstance(node, Scalar) and not node.is_null:
            name, settings = node.text, document.Mapping(node.line, [])
        else:
            entries = self.entries(node, path)
            if len(entries) != 1:
                if isinstance(node, document.Mapping):
                    self.wrong(path, f"expected one name with its settings, found {len(entries)}", node.line)
                return MISSING
            [(name, settings)] = entries.items()  # type: ignore[assignment]
        if name not in by_name:
            self.wrong(path, f"unknown name {name!r:.120}{meant(name, by_name)}", node.line)
            return MISSING
        within = path if isinstance(node, Scalar) else (*path, name)
        return self.make(by_name[name], _in_full(by_name[name], settings), within)

    def _list_value(self, kind: type, listed: Field, node: Node, path: Path) -> Any:
        """A value that is but a list of others: its items, or one item that stands for a list of itself."""
        inner = item_type(listed.type)
        if isinstance(node, document.Sequence):
            items = self.items(inner, node, path)
        else:
            item = self.value(inner, node, path)
            items = MISSING if item is MISSING else (item,)
        return MISSING if items is MISSING else self.construct(kind, {listed.name: items}, node, path)

    def _member(self, by_name: Mapping[str, enum.Enum], node: Node, path: Path) -> Any:
        text = self._text(node, path)
        if text is MISSING or text in by_name:
            return by_name.get(text, MISSING)
        self.wrong(path, f"{path[-1]} {text!r:.120}: unknown{meant(text, by_name)}", node.line)
        return MISSING

    def _text(self, node: Node, path: Path) -> Any:
        """Text as it is written, so that `name: 080` or `category: on` mean what they show."""
        if isinstance(node, Scalar) and not node.is_null:
            return node.text
        self.wrong(path, f"expected text, found {in_words(node)}", node.line)
        return MISSING

    def _seconds(self, node: Scalar, path: Path) -> Any:
        """A plain number, or text with a unit; anything else is left to the field's rule."""
        if found := _DURATION.match(node.text):
            return float(Decimal(found[1]) * _UNITS[found[2]])
        if isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return node.value
        expected = "expected seconds as a number, or with a unit (ms, s, m, h), such as 250ms"
        self.wrong(path, refusal(str(path[-1]), node.value, expected).mistakes[0].what, node.line)
        return MISSING

    def _plain(self, node: Node, path: Path) -> Any:
        """What the node means by itself: numbers, text, lists, mappings."""
        if isinstance(node, Scalar):
            return node.value
        if isinstance(node, document.Sequence):
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.items)]
        return {key: self._plain(part, (*path, key)) for key, part in self.entries(node, path).items()}

    def _mapping(self, kind: type, node: Node, path: Path) -> dict[str, Any]:
        """A mapping of any keys to dataclasses, those with a mistake left out."""
        made = {key: self.make(kind, part, (*path, key)) for key, part in self.entries(node, path).items()}
        return {key: value for key, value in made.items() if value is not MISSING}

    def _in_file(self, within: Path, path: Path, renamed: Mapping[str, str]) -> Path:
        """A path into a value as a path into its node: by the file's names, and past the items that were left out."""
        place: Path = ()
        for part in within:
            if isinstance(part, int):
                positions = self._positions.get((*path, *place))
                place += (positions[part] if positions else part,)
            elif name := part if place else renamed.get(part, part):
                place += (name,)
        return place


@cache
def _reading(kind: Any) -> Callable[[Decoder, Node, Path], Any]:
    """How a value of that type is read."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType) and all(map(dataclasses.is_dataclass, inner)):
        return lambda decoder, node, path: decoder._variant(inner, node, path)
    if (item := item_type(kind)) is not None:
        return lambda decoder, node, path: decoder.items(item, node, path)
    if origin is Mapping and dataclasses.is_dataclass(inner[1]):
        return lambda decoder, node, path: decoder._mapping(inner[1], node, path)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if (listed := _only_list(kind)) is not None:
            return lambda decoder, node, path: decoder._list_value(kind, listed, node, path)
        return lambda decoder, node, path: decoder._dataclass(kind, node, path)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        members = {name.lower(): member for name, member in kind.__members__.items()}
        return lambda decoder, node, path: decoder._member(members, node, path)
    return Decoder._text if kind is str or origin is Literal else Decoder._plain


def _only_list(kind: type) -> Field | None:
    """The field of a type that has no other, where it is a list."""
    fields = tuple(fields_of(kind).values())
    return fields[0] if len(fields) == 1 and item_type(fields[0].type) is not None else None


def _in_full(kind: type, settings: Node) -> Node:
    """The settings of a variant where they may be in short: its main field's value alone, or `true` where it has none.

    The main field is the one that the constructor takes by position.
    """
    if not isinstance(settings, Scalar) or settings.is_null:
        return settings
    main = next((field.name for field in fields_of(kind).values() if field.positional), None)
    if main is not None:
        return document.Mapping(settings.line, [(Scalar(settings.line, main, True), settings)])
    return document.Mapping(settings.line, []) if settings.value is True else settings


def line_of(node: Node, within: Path) -> int:
    """The line of the innermost thing on a path that is there."""
    for part in within:
        inner: Node | None = None
        if isinstance(node, document.Sequence) and isinstance(part, int):
            inner = node.items[part]
        elif isinstance(node, document.Mapping):
            inner = _entry(node, part)
        if inner is None:
            break
        node = inner
    return node.line


def _entry(node: document.Mapping, name: str | int) -> Node | None:
    """A field of a mapping, or of one that is merged into it."""
    merged: list[Node] = []
    for key, value in node.pairs:
        if isinstance(key, Scalar) and key.text == name:
            return value
        if is_merge(key):
            merged += value.items if isinstance(value, document.Sequence) else [value]
    found = (_entry(source, name) for source in merged if isinstance(source, document.Mapping))
    return next((value for value in found if value is not None), None)


def is_merge(key: Node) -> bool:
    """Whether a key is `<<`, whose value's fields stand in for those that the mapping does not have itself."""
    return isinstance(key, Scalar) and key.text == "<<" and not key.quoted


def in_words(node: Node) -> str:
    """What a node is, for a message."""
    if isinstance(node, document.Mapping):
        return "a mapping"
    if isinstance(node, document.Sequence):
        return "a list"
    return "nothing (an empty mapping is {})" if node.is_null else f"{node.value!r:.120}"


def meant(name: str, known: Iterable[str]) -> str:
    """The known name that comes nearest to an unknown one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(names)}" if names else ""
