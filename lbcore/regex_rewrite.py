"""Rewriting bytes by a regular expression as Envoy does: every match is replaced, in RE2's meaning of "every".

Patterns are run by Python's `re`, so only those are accepted that both engines read alike; everything else that would
be refused by RE2, or that means another thing there, is refused when the value is made. Envoy 1.40 matches bytes, not
the characters that they encode (seen), so a pattern is ASCII and `.` is one byte of a longer character. What remains
different: RE2 takes time linear in the text, where nested repetitions such as `(a+)+` can take Python exponential time.
Reference: github.com/google/re2/wiki/Syntax, RE2::GlobalReplace in re2.cc.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated

from lbcore.errors import Mistake
from lbcore.schema import Checked
from lbcore.validation import refusal, text

__all__ = ["RegexRewrite"]

_MAX_REPEAT = 1000  # re2 parse.cc: kMaxRepeat
_TOKEN = re.compile(
    r"""
      \\(?P<escape>.)
    | \[\^?(?P<members>\]?(?:\\.|[^\]\\])*)\]
    | (?P<extension>\(\?)(?P<group>P<[A-Za-z_][A-Za-z0-9_]*>|[ims]*(?:-[ims]+)?[:)])?
    | (?P<repeat>[*+?]|\{[0-9]*(?:,[0-9]*)?\})(?P<possessive>\+?)
    | .
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = frozenset("dDsSwWbAnrtfvax")
_MEMBER_ESCAPES = _ESCAPES - set("bA")
_SET_OPERATION = re.compile(r"\[|--|&&|~~|\|\|")  # Python reserves these in a set, RE2 reads [:alpha:]
_REWRITE_PART = re.compile(r"\\(?P<group>[0-9])|\\(?P<backslash>\\)|(?P<literal>[^\\]+)|(?P<stray>\\)", re.DOTALL)


def portable_pattern(value: object, field: str) -> str:
    """A pattern that RE2 and Python read alike."""
    pattern = text(value, field)
    if not pattern or not pattern.isascii():
        raise refusal(field, pattern, "expected a regular expression of ASCII characters, at least one")
    for found in _TOKEN.finditer(pattern):
        if objection := _objection(found):
            raise refusal(field, pattern, f"{objection}, found {found.group()!r} at character {found.start() + 1}")
    try:
        compiled(pattern)
    except (re.error, OverflowError, RecursionError) as wrong:
        raise refusal(field, pattern, f"expected a regular expression: {wrong}") from None
    return pattern


def _objection(token: re.Match[str]) -> str:
    """Why a token does not mean the same to both engines; empty where it does."""
    if escape := token["escape"]:
        return "" if _is_portable(escape, _ESCAPES) else "expected an escape that RE2 and Python share"
    if (members := token["members"]) is not None:
        if not all(_is_portable(escape, _MEMBER_ESCAPES) for escape in re.findall(r"\\(.)", members, re.DOTALL)):
            return "expected an escape that RE2 and Python share in a set"
        bare = re.sub(r"\\.", "", members, flags=re.DOTALL)
        return "expected no set inside a set; escape the bracket or operator" if _SET_OPERATION.search(bare) else ""
    if token["extension"]:
        return _group_objection(token["group"], token.start())
    if repeat := token["repeat"]:
        if token["possessive"] or repeat.startswith("{,"):
            return "expected *, +, ?, {n}, {n,} or {n,m}, lazy at most"
        if any(len(bound) > 4 or int(bound) > _MAX_REPEAT for bound in re.findall(r"[0-9]+", repeat)):
            return f"expected at most {_MAX_REPEAT} repetitions"
    return ""


def _group_objection(group: str | None, at: int) -> str:
    if group is None:
        return "expected (...), (?:...), (?P<name>...) or flags i, m, s: RE2 knows no lookaround or back reference"
    return "expected flags for the whole pattern at its start" if group.endswith(")") and at > 0 else ""


def _is_portable(escape: str, letters: frozenset[str]) -> bool:
    return escape in letters or not escape.isalnum()


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[bytes]:
    """The pattern for Python: on bytes its classes, word boundaries and cases are those of ASCII, as RE2's are."""
    return re.compile(pattern.encode())


@dataclass(frozen=True, slots=True)
class RegexRewrite(Checked):
    r"""Every match of `pattern` is replaced by `substitution`, in which `\1` to `\9` are groups and `\0` the match.

    Fields:
        pattern: a regular expression in the syntax that RE2 and Python share. Envoy's default setting
            `re2.max_program_size.error_level` refuses programs of more than 100 instructions, some 95 literals.
        substitution: literal text, with `\\` for a backslash.

    Raises `InvalidSetting`. Source: Envoy RegexMatchAndSubstitute (type/matcher/v3/regex.proto).

    >>> RegexRewrite(r"^/user/(\d+)/.*$", r"\1").apply(b"/user/17/cart")
    b'17'
    """

    pattern: Annotated[str, portable_pattern]
    substitution: Annotated[str, text] = ""
    _parts: tuple[bytes | int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        parts = (
            int(part["group"]) if part["group"] else (part["backslash"] or part["literal"]).encode()
            for part in _REWRITE_PART.finditer(self.substitution)
        )
        object.__setattr__(self, "_parts", tuple(parts))

    def contradictions(self) -> Iterator[Mistake]:
        groups = compiled(self.pattern).groups
        for part in _REWRITE_PART.finditer(self.substitution):
            if part["stray"] or int(part["group"] or 0) > groups:
                expected = rf"expected \0 to \{min(groups, 9)}, the groups of the pattern, or \\ for a backslash"
                yield refusal("substitution", self.substitution, expected).mistakes[0]
                return

    def apply(self, value: bytes) -> bytes:
        """The value rewritten. An empty match right after a match is skipped, as RE2 does and `re.sub` does not."""
        search = compiled(self.pattern).search
        out: list[bytes] = []
        at, last_end = 0, -1
        while at <= len(value) and (match := search(value, at)):
            out.append(value[at : match.start()])
            if match.start() == match.end() == last_end:
                out.append(value[at : at + 1])
                at += 1
                continue
            out += ((match[part] or b"") if isinstance(part, int) else part for part in self._parts)
            at = last_end = match.end()
        out.append(value[at:])
        return b"".join(out)
