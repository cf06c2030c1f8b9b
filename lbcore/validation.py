"""Checks of single values that a user sets: each returns the value to keep, or raises `InvalidSetting` with the field,
the value given and what is allowed.

The functions are called with the limits; the classes are the same checks as rules, to be declared beside the field that
they govern: `weight: Annotated[int, Whole(1, 100)]` (see `lbcore.schema`).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from lbcore.errors import InvalidSetting, Mistake

__all__ = [
    "HTTP_TOKEN",
    "JSON_EXPECTED",
    "MAX_SECONDS",
    "UINT32_MAX",
    "Interval",
    "Number",
    "Percent",
    "Seconds",
    "Uint32",
    "Whole",
    "WholePercent",
    "WholeSeconds",
    "flag",
    "header_name",
    "hexadecimal",
    "number",
    "one_of",
    "path_beyond_json",
    "printable",
    "refusal",
    "resource_name",
    "text",
    "url_path",
    "visible_text",
    "whole",
]

UINT32_MAX = 2**32 - 1
MAX_SECONDS = 9_223_372_036.0  # what 64 bits of nanoseconds hold; Envoy refuses longer durations as well
# Of lists and mappings in one another. Protobuf reads a hundred messages in one another; a mapping in a mapping takes
# three of them, and those around metadata eight: from 32 on no xDS client reads the assignment.
_DEEPEST = 24
JSON_EXPECTED = (
    "expected only text, finite numbers, true, false, null, lists and mappings with text as keys, "
    f"at most {_DEEPEST} in one another"
)
HTTP_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # RFC 9110, section 5.6.2
_HEADER_NAME = re.compile(rf":?{HTTP_TOKEN}\Z")
_SHOWN_CHARACTERS = 120  # of a refused value, so that a message stays readable whatever was given
_MAX_NAME_BYTES = 1024  # percent-encoded three times as long, and still within the 8 KiB that gRPC takes as headers


def refusal(field: str, value: object, expected: str) -> InvalidSetting:
    """The error for one field: `weight 0: expected ...`."""
    return InvalidSetting(Mistake((field,), f"{field} {_shown(value)}: {expected}"))


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 10_000:  # Python refuses to write such numbers in decimal
        return f"of {value.bit_length()} bits"
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}…"


def whole(value: object, field: str, low: int, high: int, *, hint: str = "") -> int:
    """The value, if it is a whole number from `low` to `high`; `hint` says what to do instead where it is below."""
    if type(value) is not int or not low <= value <= high:
        below = hint if type(value) is int and value < low else ""
        raise refusal(field, value, f"expected a whole number, {low} to {high}{below}")
    return value


def number(value: object, field: str, low: float, high: float = math.inf, *, above: bool = False) -> float:
    """The value as a float, if it is a finite number from `low` (or `above` it) to `high`."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not low <= value <= min(high, sys.float_info.max)
        or (above and value == low)
    ):
        bounds = f"more than {low:g}" if above else f"{low:g} or more"
        if math.isfinite(high):
            bounds += f", at most {high:g}"
        raise refusal(field, value, f"expected a number, {bounds}")
    return float(value)


def one_of(value: object, field: str, allowed: Sequence[str]) -> str:
    """The value, if it is one of the allowed names."""
    if not isinstance(value, str) or value not in allowed:
        raise refusal(field, value, f"expected one of {', '.join(allowed)}")
    return value


def flag(value: object, field: str) -> bool:
    """The value, if it is true or false."""
    if not isinstance(value, bool):
        raise refusal(field, value, "expected true or false")
    return value


def text(value: object, field: str) -> str:
    """The value, if it is text that UTF-8 can carry."""
    if not isinstance(value, str):
        raise refusal(field, value, "expected text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise refusal(field, value, "expected valid Unicode, found a lone surrogate") from None
    return value


def printable(value: object, field: str) -> str:
    """The value, if it is text in printable characters; it may be empty."""
    if not text(value, field).isprintable():
        raise refusal(field, value, "expected printable characters")
    return str(value)


def visible_text(value: object, field: str) -> str:
    """The value, if it is text of one printable character or more."""
    if not printable(value, field):
        raise refusal(field, value, "expected printable characters, at least one")
    return str(value)


def resource_name(value: object, field: str) -> str:
    """The name of a service or listener: what xDS carries, both Envoy and `xds:///NAME` of gRPC take, and a line shows.

    Printable Unicode without spaces, slashes included. Not `*` (the xDS wildcard), not `xdstp:...` (read as a URL by
    both), no slash at the end (gRPC refuses such a target).
    """
    name = text(value, field)
    if not name or not name.isprintable() or " " in name:
        raise refusal(field, name, "expected printable characters without spaces, at least one")
    if name == "*" or name.startswith("xdstp:"):
        raise refusal(field, name, "expected a name that means nothing else in xDS, which * and xdstp: do")
    if name.endswith("/"):
        raise refusal(field, name, "expected no slash at the end, because gRPC refuses to dial it")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise refusal(field, name, f"expected at most {_MAX_NAME_BYTES} bytes")
    return name


def url_path(value: object, field: str) -> str:
    """A path of HTTP requests: begins with a slash, in printable ASCII without spaces."""
    path = text(value, field)
    if not path.startswith("/"):
        raise refusal(field, path, "expected it to start with /")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise refusal(field, path, "expected printable ASCII without spaces; percent-encode the rest")
    return path


def header_name(value: object, field: str) -> str:
    """The name of a request header, in lower case; with a colon before it, of a pseudo header."""
    name = text(value, field)
    if not _HEADER_NAME.match(name):
        raise refusal(field, name, "expected a header name: letters, digits and !#$%&'*+-.^_`|~")
    return name.lower()


def hexadecimal(value: object, field: str) -> str:
    """Bytes, at least one, in hexadecimal, two digits each."""
    digits = text(value, field)
    if not re.fullmatch(r"(?:[0-9a-fA-F]{2})+", digits):
        raise refusal(field, digits, "expected bytes in hexadecimal, such as 50494e47 for PING")
    return digits


def path_beyond_json(value: Any, deepest: int = _DEEPEST) -> tuple[str | int, ...] | None:
    """The path to the first part that JSON, and so protobuf's Struct, cannot hold, or that is too deep in it."""
    if isinstance(value, str):
        return None if _is_unicode(value) else ()
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return None
    if not deepest:
        return ()
    if isinstance(value, Mapping) and all(isinstance(key, str) and _is_unicode(key) for key in value):
        parts: Any = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return ()
    for key, part in parts:
        if (path := path_beyond_json(part, deepest - 1)) is not None:
            return (key, *path)
    return None


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can carry it: a lone surrogate it cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `low` to `high`."""

    low: int
    high: int
    hint: str = ""

    def __call__(self, value: object, field: str) -> int:
        return whole(value, field, self.low, self.high, hint=self.hint)


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number from `low` (or `above` it) to `high`, kept as a float."""

    low: float
    high: float = math.inf
    above: bool = False

    def __call__(self, value: object, field: str) -> float:
        return number(value, field, self.low, self.high, above=self.above)


@dataclass(frozen=True, slots=True)
class Seconds:
    """A duration in seconds of `low` or more, kept as a float. The configuration file may write it as `250ms`."""

    low: float

    def __call__(self, value: object, field: str) -> float:
        return number(value, field, self.low, MAX_SECONDS)


@dataclass(frozen=True, slots=True)
class WholeSeconds(Seconds):
    """A duration of whole seconds, for protocols that know no parts of them."""

    low: float = 0.0

    def __call__(self, value: object, field: str) -> float:
        seconds = Seconds.__call__(self, value, field)
        if not seconds.is_integer():
            raise refusal(field, value, "expected whole seconds")
        return seconds


Uint32 = Annotated[int, Whole(0, UINT32_MAX)]
Percent = Annotated[float, Number(0.0, 100.0)]
WholePercent = Annotated[int, Whole(0, 100)]
Interval = Annotated[float, Seconds(0.001)]  # Envoy counts such durations in milliseconds and refuses none
