"""YAML as it is read: malformed text has a line, aliases are bounded, and no text ends the process."""

from __future__ import annotations

import pytest

from lbcore.config import document
from lbcore.config.document import MAX_DEPTH, Malformed, Mapping, Node, Scalar, Sequence, compose


def plain(node: Node | None) -> object:
    match node:
        case Scalar():
            return node.value
        case Sequence():
            return [plain(item) for item in node.items]
        case Mapping():
            return {plain(key): plain(value) for key, value in node.pairs}
    return None


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("a:\n  b: [1\n", 3, "not YAML: while parsing a flow sequence did not find expected"),
        ("a: b: c", 1, "not YAML: mapping values are not allowed in this context"),
        ("a: 1\nb: 'x", 2, "not YAML: while scanning a quoted scalar found unexpected end of stream"),
        ("a:\n\tb: 1", 2, "indent with spaces, YAML allows no tabs there"),
        ("a:\n  - 1\n\t- 2", 3, "indent with spaces, YAML allows no tabs there"),
        ("a: 1\n---\nb: 2", 2, "a second document begins: expected one"),
        ("a: 1\nb: \0", 2, r"character '\x00': YAML allows none such"),
        ("a: 1\r\nb: \x07", 2, r"character '\x07': YAML allows none such"),
        ("a: \ud800", 1, r"character '\ud800': YAML allows none such"),
        ("a: 1\nb: !!python/object/apply:os.system [x]", 2, "tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("a: !secret x", 1, "tag '!secret': expected no tags"),
        ("a: 1\nb: *x", 2, "alias *x: expected an anchor &x that ends before it"),
        ("a: &x [*x]", 1, "alias *x: expected an anchor &x that ends before it"),
        ("&x a: {b: *y}", 1, "alias *y: expected an anchor &y that ends before it"),
        ("%YAML 3.0\n---\na: 1", 1, "not YAML: found incompatible YAML document"),
        ('a: "\\ud800"', 1, "not YAML: "),
    ],
)
def test_text_that_is_no_document_is_refused_with_its_line(text: str, line: int, expected: str) -> None:
    with pytest.raises(Malformed) as caught:
        compose(text)
    assert (caught.value.line, expected in str(caught.value)) == (line, True)


@pytest.mark.parametrize("opening", ["[", "- ", "{a: ", "? ", "&a [", "[{a: "])
def test_deep_nesting_is_refused_and_harms_nothing(opening: str) -> None:
    with pytest.raises(Malformed, match=f"nested deeper than {MAX_DEPTH} levels|not YAML"):
        compose(opening * 200_000)


def test_nesting_as_deep_as_allowed_is_read() -> None:
    assert compose("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None


def test_nesting_through_aliases_counts() -> None:
    deep = "[" * (MAX_DEPTH - 4) + "]" * (MAX_DEPTH - 4)
    with pytest.raises(Malformed, match=r"alias \*x: nested deeper"):
        compose(f"a: &x {deep}\nb: [[[[[*x]]]]]")


def test_aliases_that_multiply_are_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    with pytest.raises(Malformed, match="aliases repeat more than"):
        compose("\n".join(levels))


def test_what_is_written_out_without_aliases_may_be_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_EXPANDED", 100)
    root = compose("[" + "1, " * 1000 + "]")
    assert isinstance(root, Sequence)
    assert len(root.items) == 1000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("'true'", "true"),
        ("null", None),
        ("''", ""),
        ("0o17", 15),
        ("017", 17),
        ("+3", 3),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        (".", "."),
        ("+", "+"),
        ("-.inf", float("-inf")),
        ("2026-01-01", "2026-01-01"),
        ("=", "="),
        ("<<", "<<"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("|\n  5", "5"),
        ("9" * 400, int("9" * 400)),
        ("9" * 401, "9" * 401),
        ("1e999", float("inf")),
    ],
)
def test_a_scalar_means_what_the_core_schema_says(text: str, value: object) -> None:
    read = plain(compose(f"- {text}"))
    assert (read, type(read[0])) == ([value], type(value))  # type: ignore[index]


def test_lines_are_those_of_the_fields() -> None:
    root = compose("# comment\na:\n\n  - 1\n  -\n    x: 2\nb:\n  c: {d: 3,\n    e: 4}\n")
    assert isinstance(root, Mapping)
    (_, a), (_, b) = root.pairs
    assert isinstance(a, Sequence)
    assert isinstance(b, Mapping)
    ((_, c),) = b.pairs
    assert isinstance(c, Mapping)
    lines = [root.line, a.line, *(item.line for item in a.items), b.line, c.line, *(each.line for _, each in c.pairs)]
    assert lines == [2, 2, 4, 6, 7, 8, 8, 9]


@pytest.mark.parametrize("text", ["", "# x", "---\n...\n", "\ufeff"])
def test_a_text_of_nothing_is_nothing(text: str) -> None:
    assert plain(compose(text)) is None


def test_a_byte_order_mark_and_windows_line_ends_are_read_over() -> None:
    assert plain(compose("\ufeffa: 1\r\nb: 2\r\n")) == {"a": 1, "b": 2}
