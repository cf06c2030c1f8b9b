"""Python objects of every kind, for entries that must survive whatever they are given."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy
from hypothesis import strategies as st

from lbcore import Endpoint, Health, Locality

REFUSALS = (TypeError, ValueError, LookupError, OverflowError)


class Hostile:
    """Raises from, or lies in, every conversion that a callee might try."""

    def __index__(self) -> int:
        raise ValueError("index")

    def __int__(self) -> int:
        raise ValueError("int")

    def __float__(self) -> float:
        return math.nan

    def __iter__(self) -> Any:
        raise ValueError("iter")

    def __len__(self) -> int:
        return 2**62

    def __bool__(self) -> bool:
        raise ValueError("bool")


class LyingSequence:
    """Claims three items and has none."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> object:
        raise IndexError(index)


class Text(str):
    __slots__ = ()


ODD_OBJECTS = [
    *(Hostile(), LyingSequence(), Text("x"), Decimal("NaN"), Fraction(1, 3), object(), int, len, Ellipsis),
    *(numpy.uint64(7), numpy.float32(1), numpy.zeros(()), numpy.zeros((2, 2), dtype=numpy.uint64)),
    *(numpy.array(["a", "ü"]), numpy.array([b"a"]), numpy.arange(3, dtype=">u8")),
    *(bytearray(b"x"), memoryview(b"y"), memoryview(b"abcdef")[::2]),
    *(Health.DRAINING, Locality("a"), Endpoint("10.9.9.9:9")),
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(exclude_categories=()), max_size=8),
    st.binary(max_size=8),
    st.sampled_from(ODD_OBJECTS),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), inner, max_size=3),
        st.builds(iter, st.lists(inner, max_size=3)),
    ),
    max_leaves=5,
)


def survives(call: Callable[[], object]) -> None:
    with contextlib.suppress(*REFUSALS):
        call()
