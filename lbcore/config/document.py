"""YAML text to a tree of nodes that know their lines: what the decoder reads a configuration from.

Built from libyaml's events by a loop, because PyYAML's composer recurses in C and ends the process on text that is
nested some ten thousand deep. The invariant: whatever the text, the answer is a tree of bounded depth and bounded size
(aliases count as often as they are used), or `Malformed`. Scalars follow the core schema of YAML 1.2, so only `true`
and `false` are booleans, `010` is ten, and `no`, `12:30` and `2026-01-01` are text.
Reference: yaml.org/spec/1.2.2, section 10.3.2.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, TypeAlias

import msgspec
import yaml

__all__ = ["Malformed", "Mapping", "Node", "Scalar", "Sequence", "compose"]

MAX_DEPTH = 64
MAX_EXPANDED = 1_000_000  # values, once aliases are expanded; a file that holds as many without aliases may be longer
_MAX_NUMBER_CHARACTERS = 400  # more than any float needs; Python takes quadratic time for long integers

_NOT_IN_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOLEANS = {
    text: value for value, word in ((True, "true"), (False, "false")) for text in (word, word.title(), word.upper())
}
_INTEGER = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_CORE_TAGS = {"!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Malformed(Exception):
    """The text is no YAML document that lbcore reads; `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


# Nodes are out of the garbage collector's sight: it would walk the tree of a large file again and again while that
# grows, for half of all the time. They hold no cycles: an anchor is known only once its node is complete.


class Scalar(msgspec.Struct, frozen=True, gc=False):
    """One plain or quoted value, as it is written."""

    size: ClassVar[int] = 1
    height: ClassVar[int] = 0
    line: int
    text: str
    quoted: bool

    @property
    def is_null(self) -> bool:
        return not self.quoted and _NULL.match(self.text) is not None

    @property
    def value(self) -> bool | int | float | str | None:
        """What it means by the core schema."""
        text = self.text
        if self.quoted or len(text) > _MAX_NUMBER_CHARACTERS:
            return text
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _NULL.match(text):
            return None
        if _INTEGER.match(text):
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if _FLOAT.match(text):
            return float(text)
        return float(text.replace(".", "", 1)) if _NOT_FINITE.match(text) else text


class Sequence(msgspec.Struct, frozen=True, gc=False):
    line: int
    items: list[Node]
    size: int = 1
    height: int = 1

    @property
    def is_null(self) -> bool:
        return False


class Mapping(msgspec.Struct, frozen=True, gc=False):
    """Pairs in the order of the file, keys that repeat included: to say so is the decoder's part."""

    line: int
    pairs: list[tuple[Node, Node]]
    size: int = 1
    height: int = 1

    @property
    def is_null(self) -> bool:
        return False


Node: TypeAlias = Scalar | Sequence | Mapping


def compose(text: str) -> Node | None:
    """The one document of a YAML text; None where it holds nothing. Raises `Malformed`."""
    if found := _NOT_IN_YAML.search(text, 1 if text.startswith("\ufeff") else 0):
        line = len(f"{text[: found.start()]}.".splitlines())
        raise Malformed(
            line, f"character {found.group()!r}: YAML allows none such; write it as an escape in double quotes"
        )
    tree = _Tree()
    try:
        for event in yaml.parse(text, Loader=_Loader):
            tree.add(event)
    except yaml.MarkedYAMLError as wrong:  # a ReaderError is none, and what it would refuse has been
        raise Malformed(*_explained(wrong, text)) from None
    return tree.root


def _explained(wrong: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    mark = wrong.problem_mark or wrong.context_mark
    line = mark.line if mark else 0
    what = " ".join(part for part in ("not YAML:", wrong.context, wrong.problem) if part)
    written = text.splitlines()[line : line + 1]
    if written and "\t" in re.match(r"\s*", written[0])[0]:  # type: ignore[index]
        what += "; indent with spaces, YAML allows no tabs there"
    return line + 1, what


class _Tree:
    """Puts events together to nodes; the collections that are still open form a stack, innermost last."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[tuple[Any, int, list[Node]]] = []  # the event that opened it, its line, what it holds so far
        self._anchors: dict[str, Node] = {}
        self._written = 0

    def add(self, event: Any) -> None:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            tag = event.tag
            scalar = Scalar(event.start_mark.line + 1, event.value, tag is not None or bool(event.style))
            if tag is None and event.anchor is None and self._open:
                self._written += 1  # as `_place` does, for the bulk of every file
                self._open[-1][2].append(scalar)
            else:
                self._place(scalar, event)
        elif kind is yaml.SequenceStartEvent or kind is yaml.MappingStartEvent:
            if len(self._open) == MAX_DEPTH:
                raise Malformed(event.start_mark.line + 1, f"nested deeper than {MAX_DEPTH} levels")
            self._open.append((event, self._line(event), []))
        elif kind is yaml.SequenceEndEvent:
            start, line, items = self._open.pop()
            size = 1 + sum(item.size for item in items)
            height = 1 + max((item.height for item in items), default=0)
            self._place(Sequence(line, items, size, height), start)
        elif kind is yaml.MappingEndEvent:
            start, line, parts = self._open.pop()
            size = 1 + sum(part.size for part in parts)
            height = 1 + max((part.height for part in parts), default=0)
            pairs = list(zip(parts[::2], parts[1::2], strict=True))
            self._place(Mapping(line, pairs, size, height), start)
        elif kind is yaml.AliasEvent:
            self._repeat(event)
        elif kind is yaml.DocumentStartEvent and self.root is not None:
            raise Malformed(event.start_mark.line + 1, "a second document begins: expected one")

    def _line(self, event: Any) -> int:
        """Where a collection begins: for a field's value that is the field's line, not the next one."""
        if self._open:
            start, _, parts = self._open[-1]
            if type(start) is yaml.MappingStartEvent and len(parts) % 2 == 1:
                return parts[-1].line
        return int(event.start_mark.line) + 1

    def _place(self, node: Node, event: Any) -> None:
        """Puts a new node where it belongs."""
        self._written += 1
        if event.tag is not None and event.tag not in _CORE_TAGS:
            raise Malformed(node.line, f"tag {event.tag!r}: expected no tags")
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._attach(node)

    def _repeat(self, alias: Any) -> None:
        """Puts an anchored node in a second place. An anchor counts once its node is complete, so none holds itself."""
        line = alias.start_mark.line + 1
        node = self._anchors.get(alias.anchor)
        if node is None:
            raise Malformed(line, f"alias *{alias.anchor}: expected an anchor &{alias.anchor} that ends before it")
        if len(self._open) + node.height > MAX_DEPTH:
            raise Malformed(line, f"alias *{alias.anchor}: nested deeper than {MAX_DEPTH} levels")
        self._attach(node)

    def _attach(self, node: Node) -> None:
        if node.size > MAX_EXPANDED and node.size > self._written:
            raise Malformed(node.line, f"aliases repeat more than {MAX_EXPANDED} values")
        if self._open:
            self._open[-1][2].append(node)
        else:
            self.root = node
