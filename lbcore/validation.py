"""Checks of single values that a user sets. Each raises `InvalidSetting` with the field, the value, what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lbcore.errors import InvalidSetting


def whole(value: object, field: str, low: int, high: int, *, hint: str = "") -> int:
    """The value, if it is a whole number from `low` to `high`; `hint` says what to do instead where it is below."""
    if type(value) is not int or not low <= value <= high:
        below = hint if type(value) is int and value < low else ""
        raise InvalidSetting(f"{field} {value!r}: expected a whole number, {low} to {high}{below}")
    return value


def number(value: object, field: str, low: float, high: float = math.inf, *, above: bool = False) -> float:
    """The value as a float, if it is a finite number from `low` (or `above` it) to `high`."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not low <= value <= high
        or (above and value == low)
    ):
        bounds = f"more than {low:g}" if above else f"{low:g} or more"
        if math.isfinite(high):
            bounds += f", at most {high:g}"
        raise InvalidSetting(f"{field} {value!r}: expected a number, {bounds}")
    return float(value)


def one_of(value: object, field: str, allowed: Sequence[str]) -> None:
    """Accepts one of the allowed names."""
    if value not in allowed:
        raise InvalidSetting(f"{field} {value!r}: expected one of {', '.join(allowed)}")


def text(value: object, field: str) -> str:
    """The value, if it is text that UTF-8 can carry."""
    if not isinstance(value, str):
        raise InvalidSetting(f"{field} {value!r}: expected text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidSetting(f"{field} {value!r}: expected valid Unicode, found a lone surrogate") from None
    return value
